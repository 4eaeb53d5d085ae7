"""Ways to score for bench/score.py: ours, and its peers. Each takes texts and gives the seconds that it took, and the label of each."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from finsight.ports import Classifier

BATCH = 32

Scorer = Callable[[list[str]], tuple[float, list[str]]]


def clocked(work: Callable[[list[str]], list[str]]) -> Scorer:
    def scorer(texts: list[str]) -> tuple[float, list[str]]:
        started = time.perf_counter()
        labels = work(texts)
        return time.perf_counter() - started, labels

    return scorer


def labelling(classifier: Classifier) -> Scorer:
    return clocked(lambda texts: [classifier.labels[i] for i in classifier.logits(texts).argmax(axis=1)])


def ours(bundle: Path, name: str) -> Scorer:
    from finsight import bootstrap

    return labelling(bootstrap.bundle_classifier(bundle, name))


def half(checkpoint: Path, longest: int, device: str) -> Scorer:
    """Our checkpoint classifier in fp16."""
    from finsight.adapters.torch_classifier import TorchClassifier

    return labelling(TorchClassifier(checkpoint, longest, device, half=True))


def transformers_pipeline(checkpoint: Path, longest: int, device: str = "cpu") -> Scorer:
    import torch
    from transformers import pipeline

    pipe = pipeline("text-classification", model=str(checkpoint), dtype=torch.float32, device=device)
    return clocked(lambda texts: [found["label"] for found in pipe(texts, batch_size=BATCH, truncation=True, max_length=longest)])


def onnxruntime_loop(graph: Path, checkpoint: Path, labels: list[str], longest: int) -> Scorer:
    import onnxruntime as ort
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [put.name for put in session.get_inputs()]

    def work(texts: list[str]) -> list[str]:
        found = []
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(texts[start : start + BATCH], padding=True, truncation=True, max_length=longest, return_tensors="np")
            logits = session.run(None, {name: batch[name] for name in names})[0]
            found += [labels[i] for i in logits.argmax(axis=1)]
        return found

    return clocked(work)


@contextmanager
def optimum_onnx(python: Path, graph: Path, checkpoint: Path, longest: int) -> Iterator[Scorer]:
    """Lives in a process of the environment of ``python``, and reads the clock there."""
    program = Path(__file__).parent / "optimum_onnx.py"
    command = [str(python), "-I", str(program), str(graph), str(checkpoint), str(BATCH), str(longest)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8") as child:

        def scorer(texts: list[str]) -> tuple[float, list[str]]:
            try:
                print(json.dumps(texts), file=child.stdin, flush=True)
                answer = json.loads(child.stdout.readline())
            except (BrokenPipeError, json.JSONDecodeError):
                raise click.ClickException(f"{python}: no answer; is it the interpreter of the environment that --help shows?") from None
            return answer["seconds"], answer["labels"]

        yield scorer
