"""The examples of a page, run."""

import doctest

from poai_tools.spec.pages import extract_examples


def run_examples(markdown: str, path: str) -> int:
    """Run the `pycon` fences of a page as one doctest, whose messages name the page's lines; return how many passed."""
    names = {"__name__": "__main__"}
    examples = doctest.DocTestParser().get_doctest(extract_examples(markdown), names, path, path, 0)
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(examples, out=report.append)
    assert result.failed == 0, "".join(report)
    return result.attempted
