"""The weights that a suite's metrics need are downloaded by a rule, and only those."""

from checkout import copy_checkout, edit_suite, jobs, snakemake


def test_a_rule_downloads_the_weights_of_metrics(tmp_path):
    folder = copy_checkout(tmp_path / "checkout")
    edit_suite(folder, lambda suite: suite.update(evaluation={"metrics": ["psnr", "lpips"]}))
    planned = snakemake(folder, "-n", "--cores", "2", "--config", "suite=tiny").stdout
    assert jobs(planned)["fetch"] == 2
    assert "output: data/weights/lpips-vgg-a78928a0.pth" in planned
    assert "output: data/weights/vgg16-397923af.pth" in planned
