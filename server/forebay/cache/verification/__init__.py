"""The served model's word on what the cache cannot tell by itself: whether two questions, or two answers, are one."""
