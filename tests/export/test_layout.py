"""What lies beside an exported file: true checksums, a template that frames as the tokenizer does, a card."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.export.api import Exported, export_student
from bridge_edge.export.layout import around, default_system, how_to_run
from bridge_edge.export.wish import Wish
from tests import tiny

QUESTION = "Is 7 > 5?"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    place = tmp_path_factory.mktemp("layout")
    folder = tiny.checkpoint(place / "m")
    wish = Wish(facts={"Teacher": ("3 queries, $0.02",), "license": ("apache-2.0",)})
    return export_student(folder, place / "out", "gguf", "Q8_0", [Sample(QUESTION, "yes")], 1, wish)


def test_checksums_hold(made: Exported) -> None:
    folder = made.path.parent
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(line.split(": ")[0] for line in done.stdout.splitlines()) == sorted(
        p.name for p in folder.iterdir() if p.name != "SHA256SUMS"
    )


def test_ollamas_template_frames_as_the_tokenizer_does(made: Exported) -> None:
    folder = made.path.parent
    template = (folder / "template").read_text()
    tokenizer = AutoTokenizer.from_pretrained(folder.parent / "m")
    message = [{"role": "user", "content": QUESTION}]
    wanted = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    assert template.replace("{{ .Prompt }}", QUESTION) == wanted
    lines = (folder / "Modelfile").read_text()
    assert lines.startswith("FROM ./toy-Q8_0.gguf\n")
    assert template in lines
    assert json.loads((folder / "params").read_text())["stop"] == ["<|im_end|>"]
    assert 'PARAMETER stop "<|im_end|>"' in lines


def test_a_template_that_does_more_is_left_out() -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }} {{ messages[0]['content'] }}"
    assert around(tokenizer) is None
    tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    assert around(tokenizer) is None
    tokenizer.chat_template = "A {{ messages[0]['content'] }} B"
    assert around(tokenizer) == ("A ", " B")


SYSTEM = """{% if messages[0]['role'] == 'system' %}<|im_start|>system
{{ messages[0]['content'] }}<|im_end|>
{% else %}<|im_start|>system
You are careful.<|im_end|>
{% endif %}{% for m in messages if m['role'] == 'user' %}<|im_start|>user
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_a_templates_own_system_message_is_ollamas_system(tmp_path: Path) -> None:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = SYSTEM
    folder = tiny.checkpoint(tmp_path / "m", tok=tokenizer)
    out = export_student(folder, tmp_path / "out", "gguf", "Q8_0", tiny.PROMPTS, 1).path.parent
    assert (out / "system").read_text() == "You are careful."
    assert 'SYSTEM """You are careful."""' in (out / "Modelfile").read_text()
    template = (out / "template").read_text().replace("{{ .System }}", "You are careful.")
    message = [{"role": "user", "content": QUESTION}]
    wanted = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    assert template.replace("{{ .Prompt }}", QUESTION) == wanted


def test_no_system_where_the_template_has_none(made: Exported) -> None:
    assert not (made.path.parent / "system").exists()
    assert default_system(tiny.tokenizer(), "<|im_start|>user\n") is None


def test_the_card_says_what_was_measured_and_what_was_not(made: Exported) -> None:
    text = (made.path.parent / "README.md").read_text()
    assert text.startswith("---\nlicense: apache-2.0\n")
    assert "- 3 queries, $0.02" in text
    assert f"{made.bytes / 2**20:.2f} MiB" in text
    assert "accuracy on 1 dev items" in text
    assert "The other ways were not tested here" in text
    assert str(made.path.parent.parent) not in text


@pytest.mark.parametrize("fmt", ["gguf", "onnx"])
def test_a_question_in_a_command_is_one_word_as_it_is(fmt: str) -> None:
    card = Card("toy", examples=('Isn\'t $90,000 "more" than `7`?',))
    report = {"fmt": fmt, "path": "m.gguf", "parity": {"through": "llama.cpp"}}
    command = next(line for line in how_to_run(report, card).splitlines() if line.startswith("bridge-edge run"))
    assert shlex.split(command)[-1] == card.examples[0]
