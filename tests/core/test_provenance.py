"""Results name the commit that made them, also in a copy without Git's folder."""

from msgunet.core import provenance


def test_a_copy_without_git_takes_the_commit_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert provenance.commit.__wrapped__() == "unknown"
    monkeypatch.setenv("MSGUNET_COMMIT", "0123456789ab")
    assert provenance.commit.__wrapped__() == "0123456789ab"
