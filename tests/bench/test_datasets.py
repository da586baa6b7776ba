"""What is asked and when: lengths, what prompts share, files, arrivals."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics
from collections import Counter
from pathlib import Path

import pytest

from forebay.bench.arrivals import arrival_times
from forebay.bench.datasets import DATASETS, DatasetOptions, make_sessions
from forebay.errors import ConfigurationError


def test_random_prompts_have_the_length_asked_for() -> None:
    """Token ids as many as asked, within the ratio; other ones for another seed, the same for the same."""
    options = DatasetOptions(num_prompts=200, input_len=100, output_len=50, range_ratio=0.2, token_ids=range(5, 9))
    sessions = make_sessions(options, 1, as_text=False)
    lengths = [len(session.turns[0].prompt) for session in sessions]
    assert min(lengths) >= 80
    assert max(lengths) <= 120
    assert len(set(lengths)) > 10
    assert {token for session in sessions for token in session.turns[0].prompt} == {5, 6, 7, 8}
    assert all(40 <= session.turns[0].max_tokens <= 60 for session in sessions)
    assert make_sessions(options, 1, as_text=False) == sessions
    assert not {str(s.turns[0].prompt) for s in sessions} & {
        str(s.turns[0].prompt) for s in make_sessions(options, 2, as_text=False)
    }


def test_text_has_a_word_a_token() -> None:
    """Where the API wants text."""
    (session,) = make_sessions(DatasetOptions(num_prompts=1, input_len=7, prefix_len=3), 1, as_text=True)
    assert len(str(session.turns[0].prompt).split()) == 10


def test_prefixes_repeat_and_what_follows_them_does_not() -> None:
    """Each prefix before as many prompts as the next."""
    options = DatasetOptions("prefix_repetition", num_prompts=30, input_len=8, prefix_len=16, num_prefixes=3)
    prompts = [tuple(session.turns[0].prompt) for session in make_sessions(options, 1, as_text=False)]
    assert sorted(Counter(prompt[:16] for prompt in prompts).values()) == [10, 10, 10]
    assert len({prompt[16:] for prompt in prompts}) == 30


def test_conversations_add_up_to_the_requests_asked_for() -> None:
    """Ten requests in conversations of four: 4, 4 and 2."""
    sessions = make_sessions(DatasetOptions("multi_turn", num_prompts=10, num_turns=4), 1, as_text=False)
    assert [len(session.turns) for session in sessions] == [4, 4, 2]


def test_replay_repeats_some_prompts_more_than_others() -> None:
    """Word for word, the first about twice as often as the second (Zipf's law with exponent 1)."""
    options = DatasetOptions("cache_replay", num_prompts=6000, input_len=4, num_distinct=10)
    counts = Counter(str(session.turns[0].prompt) for session in make_sessions(options, 1, as_text=True)).most_common()
    assert len(counts) == 10
    assert 1.7 < counts[0][1] / counts[1][1] < 2.3


def test_custom_lines(tmp_path: Path) -> None:
    """Text or token ids, one turn or several, with times: in their order, from zero."""
    path = tmp_path / "lines.jsonl"
    lines = [
        {"prompt": "b", "at": 7.5, "output_tokens": 9},
        {"prompt": [1, 2], "at": 5},
        {"turns": ["x", "y"], "at": 6},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    sessions = make_sessions(DatasetOptions("custom", path, num_prompts=10), 1, as_text=False)
    assert [session.at_s for session in sessions] == [0, 1, 2.5]
    assert [turn.prompt for session in sessions for turn in session.turns] == [[1, 2], "x", "y", "b"]
    assert sessions[-1].turns[0].max_tokens == 9


def test_sharegpt(tmp_path: Path) -> None:
    """The first question of each conversation that has an answer, neither very short nor very long; again from the
    start where more are wanted."""
    path = tmp_path / "sharegpt.json"

    def talk(*texts: str) -> dict[str, object]:
        return {"conversations": [{"from": "human", "value": text} for text in texts]}

    path.write_text(
        json.dumps([talk("q" * 40, "a" * 80), talk("q" * 40), talk("q" * 9000, "a" * 80), talk("hi", "ho")])
    )
    sessions = make_sessions(DatasetOptions("sharegpt", path, num_prompts=3), 1, as_text=True)
    assert [(session.turns[0].prompt, session.turns[0].max_tokens) for session in sessions] == [("q" * 40, 20)] * 3


def test_burstgpt(tmp_path: Path) -> None:
    """Lengths and times of the trace; rows that failed there are left out."""
    path = tmp_path / "trace.csv"
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    path.write_text(
        head + "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,API log\n118,GPT-4,4,76,80,x\n"
    )
    sessions = make_sessions(DatasetOptions("burstgpt", path, num_prompts=9), 1, as_text=False)
    found = [(session.at_s, len(session.turns[0].prompt), session.turns[0].max_tokens) for session in sessions]
    assert found == [(0, 472, 18), (113, 4, 76)]
    (first,) = make_sessions(DatasetOptions("burstgpt", path, num_prompts=1, output_len=3), 1, as_text=False)
    assert (len(first.turns[0].prompt), first.turns[0].max_tokens) == (472, 3)


def test_no_more_of_a_trace_is_read_than_is_asked_for(tmp_path: Path) -> None:
    """What comes later in it, for which nobody asks, may be anything."""
    path = tmp_path / "trace.csv"
    path.write_text("Timestamp,Request tokens,Response tokens\n1,2,3\n4,none,none\n")
    assert len(make_sessions(DatasetOptions("burstgpt", path, num_prompts=1), 1, as_text=True)) == 1
    with pytest.raises(ConfigurationError, match=r"trace\.csv"):
        make_sessions(DatasetOptions("burstgpt", path, num_prompts=2), 1, as_text=True)


@pytest.mark.parametrize("timed", [True, False])
def test_conversations_of_a_file_add_up_to_the_requests_asked_for(timed: bool, tmp_path: Path) -> None:
    """Five requests of conversations of two, two and three: one of them is cut short."""
    path = tmp_path / "lines.jsonl"
    talks: list[dict[str, object]] = [{"turns": ["a", "b"]}, {"turns": ["c", "d"]}, {"turns": ["e", "f", "g"]}]
    path.write_text("\n".join(json.dumps(talk | ({"at": at} if timed else {})) for at, talk in enumerate(talks)))
    sessions = make_sessions(DatasetOptions("custom", path, num_prompts=5), 1, as_text=True)
    assert sum(len(session.turns) for session in sessions) == 5
    if timed:
        assert [len(session.turns) for session in sessions] == [2, 2, 1]


@pytest.mark.parametrize("name", ["custom", "sharegpt", "burstgpt"])
@pytest.mark.parametrize(
    "content", [None, "", "{}", '{"prompt": 3}', '{"turns": []}', '{"turns": "a"}', "[{}]", "Timestamp\n1\n"]
)
def test_a_file_that_is_not_in_its_form_is_refused(name: str, content: str | None, tmp_path: Path) -> None:
    """In a sentence that names the file, for every dataset that is read from one."""
    path = tmp_path / "data"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match="data"):
        make_sessions(DatasetOptions(name, path), 1, as_text=True)


def test_every_dataset_that_needs_no_file_is_made() -> None:
    """As text and as token ids, as many requests as asked for."""
    for name in DATASETS[:4]:
        for as_text in (True, False):
            sessions = make_sessions(DatasetOptions(name, num_prompts=12), 1, as_text=as_text)
            assert sum(len(session.turns) for session in sessions) == 12


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 16.0])
def test_arrivals_keep_the_rate_and_have_the_burstiness(burstiness: float) -> None:
    """The last comes when the rate says; the gaps' coefficient of variation is 1 / sqrt(burstiness), as of a gamma."""
    times = arrival_times(20_000, 50.0, burstiness, random.Random(3))
    assert times[-1] == pytest.approx(400)
    assert times == sorted(times)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(burstiness**-0.5, rel=0.05)


def test_without_a_rate_all_come_at_once() -> None:
    """An infinite rate is no rate."""
    assert arrival_times(3, math.inf, 1.0, random.Random(1)) == [0, 0, 0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a", "output_tokens": 0}', "0 is no number of tokens"),
        ('{"prompt": "a", "output_tokens": true}', "True is no number"),
        ('{"prompt": "a", "output_tokens": 1e30}', "no number of tokens"),
        ('{"prompt": "a", "max_tokens": 3}', "max_tokens is not among"),
        ('{"prompt": "a", "turns": ["b"]}', "turns is not among"),
        ('{"prompt": [1, 2]}', "token ids need --endpoint /v1/completions"),
        ('{"turns": [[1, 2]]}', "a list of at least one text"),
        ('{"prompt": "a", "at": -1}', "-1 is no number of seconds"),
        ('{"prompt": "a", "at": 4}', "at is in some lines only"),
    ],
)
def test_a_line_at_fault_is_named(line: str, said: str, tmp_path: Path) -> None:
    """With its number and what is wrong with it, before anything is asked."""
    path = tmp_path / "lines.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line)
    with pytest.raises(ConfigurationError, match=rf"lines.jsonl:2 .*{said}"):
        make_sessions(DatasetOptions("custom", path), 1, as_text=True)


@pytest.mark.parametrize("row", ["nan,2,3", "inf,2,3", "1,99999999999,3", "1,abc,3", f'1,"{"9" * 200_000}",3'])
def test_a_row_at_fault_is_named(row: str, tmp_path: Path) -> None:
    """Times that never come, lengths that no memory holds, and cells that are no number or no cell."""
    path = tmp_path / "trace.csv"
    path.write_text(f"Timestamp,Request tokens,Response tokens\n1,2,3\n{row}\n")
    with pytest.raises(ConfigurationError, match=r"trace.csv(:3)? "):
        make_sessions(DatasetOptions("burstgpt", path), 1, as_text=True)
