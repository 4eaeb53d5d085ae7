"""The peer optimum-onnx of bench/score.py, which runs this with the interpreter of an environment of its own (see there).

Arguments: the ONNX file, the folder of the checkpoint, the rows of a batch, the longest text in tokens. Each line of standard input is a
JSON list of texts; each gets a line with the seconds that the pipeline took for it, tokenising included, and the label of each text.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def main(graph: Path, checkpoint: Path, batch: int, longest: int) -> None:
    from optimum.onnxruntime import ORTModelForSequenceClassification, pipeline
    from transformers import PreTrainedTokenizerFast

    # Built of its file: a tokenizer class that transformers 5 names in tokenizer_config.json may be unknown here.
    padding = json.loads((checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))["pad_token"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"), pad_token=padding)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints is no answer
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)  # laid out as optimum expects it
        (folder / "model.onnx").symlink_to(graph.resolve())
        (folder / "config.json").symlink_to((checkpoint / "config.json").resolve())
        model = ORTModelForSequenceClassification.from_pretrained(folder)
        pipe = pipeline("text-classification", model=model, tokenizer=tokenizer)
        for line in sys.stdin:
            texts = json.loads(line)
            started = time.perf_counter()
            found = pipe(texts, batch_size=batch, truncation=True, max_length=longest)
            seconds = time.perf_counter() - started
            print(json.dumps({"seconds": seconds, "labels": [row["label"] for row in found]}), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
