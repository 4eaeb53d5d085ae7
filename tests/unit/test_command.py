"""The edge of every command."""

import subprocess
import sys


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    code = (
        "import click; from finsight.command import edge\n"
        "@click.command()\n@edge\ndef main():\n    for i in range(100000):\n        click.echo(i)\n"
        "main()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
