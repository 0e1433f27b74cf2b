"""A second Snakemake in a folder where one is running: a look changes nothing."""

from checkout import copy_checkout, edit_suite, snakemake

from msgunet.core.files import KernelLock


def test_a_dry_run_beside_a_run_changes_no_settings(tmp_path):
    folder = copy_checkout(tmp_path / "checkout")
    assert snakemake(folder, "-n", "--config", "suite=tiny").returncode == 0
    files = [*folder.glob("results/tiny/**/*.json"), *folder.glob("data/*/dataset.json")]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    edit_suite(folder, lambda suite: suite["training"].update(epochs=2))
    with KernelLock(folder / ".snakemake" / "benchmark.lock"):
        look = snakemake(folder, "-n", "--config", "suite=tiny")
        assert look.returncode == 0, look.stderr
        assert "a run is in progress; not updated until it ends" in look.stderr
        assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files} == before
        (folder / "config" / "other.yaml").write_text((folder / "config" / "tiny.yaml").read_text())
        other = snakemake(folder, "-n", "--config", "suite=other")
        assert other.returncode == 0, other.stderr
        assert (folder / "results" / "other" / "settings" / "report.json").is_file(), "another suite can be looked at"
    assert snakemake(folder, "-n", "--config", "suite=tiny").returncode == 0
    assert any(path.read_bytes() != content for path, (content, _) in before.items())
