"""An audit that was stopped, in the trained network or in the one at initialisation, is not at its end."""

import json

import pytest

from nfa.compare.together import is_audited


@pytest.mark.parametrize(
    ("meta", "audited"),
    [
        ({}, True),
        ({"at initialisation": {"samples": 8}}, True),
        ({"stopped": "after 3 of 8 samples"}, False),
        ({"at initialisation": {"stopped": "after 3 of 8 samples"}}, False),
    ],
)
def test_audits_at_their_end(tmp_path, meta, audited):
    (tmp_path / "audit.json").write_text(json.dumps({"meta": meta, "rows": []}), encoding="utf-8")
    assert not is_audited(tmp_path)  # the files of a reader are missing
    for kind in ("csv", "html"):
        (tmp_path / f"audit.{kind}").write_text("", encoding="utf-8")
    assert is_audited(tmp_path) is audited
