"""How a site's folder is put to the command line: checked, then trained on for a step."""

from pathlib import Path

from tests.corpus.case import TINY, Case, assert_sentence, call, held, refused


def look(case: Case, tmp_path: Path) -> None:
    """Check the site, then train on it for a step; both say the same, and the files stay."""
    site = tmp_path / "data" / "hospital"
    site.parent.mkdir()
    case.make(site)
    before = held(site.parent)
    checked = call("check-site", site, *TINY)
    if not case.said:
        assert checked.exit_code == 0, checked.output
        assert checked.stdout.strip().endswith("Fit for training: yes")
    else:
        said = rf"Site 'hospital': .*{case.said}"
        assert checked.exit_code == 1, checked.output
        assert "Traceback" not in checked.output and not checked.stderr
        problems = [one for one in checked.stdout.splitlines() if one.startswith("Problem: ")]
        assert problems and checked.stdout.strip().endswith("Fit for training: no")
        assert_sentence(problems[0], said)
        runs = tmp_path / "runs"
        refused(said, "train", "pooled", "--site", f"hospital={site}", "--runs", runs, *TINY)
        assert not runs.exists()
    assert held(site.parent) == before
