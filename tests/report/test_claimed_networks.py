"""At the paper's size and data, its claims are tested only with its networks."""

import pytest
from made import make_plan

from msgunet.report import claims
from msgunet.report.collect import Collection
from msgunet.report.published import other_network
from msgunet.report.tables import build_tables


def claims_on(folder, data, **entries):
    """Return the claims on the quality of these entries, none of which is trained yet."""
    plan = make_plan(folder, datasets={"maps": data}, methods=entries, ablation={})
    frame = build_tables(Collection(plan.results / "settings" / "report.json", plan.results)).frames["claims"]
    return frame.set_index("claim")[["on", "verdict"]].T.to_dict("list")


def test_another_network_is_not_tested_and_the_reason_is_said(working_folder):
    entries = {
        "pix2pixhd": {},
        "three": {"method": "pix2pixhd", "title": "Three", "options": {"generator": "global", "downsamplings": 3}},
        "narrow": {"method": "pix2pixhd", "title": "Narrow", "options": {"width": 0.25, "blocks": 3}},
        "msgunet": {"options": {"beta": 20, "scales": 4}},
    }
    found = claims_on(working_folder, {"size": [512, 512]}, **entries)
    on = "maps, 512×512, native protocol"
    assert found == {
        "MSG U-Net is close to Pix2Pix-HD": [on, claims.OPEN],
        "MSG U-Net is close to Three": [on, claims.OPEN],
        "MSG U-Net is close to Narrow": [
            f"{on} (not the paper's networks: Narrow: width 0.25, blocks 3)",
            claims.OTHER,
        ],
    }


def test_our_own_network_must_be_the_papers_too(working_folder):
    variant = {"options": {"scales": 1, "intermediate_outputs": False}}
    ((on, verdict),) = claims_on(working_folder, {"size": [512, 512]}, pix2pixhd={}, msgunet=variant).values()
    assert on.endswith("(not the paper's networks: MSG U-Net: scales 1, intermediate_outputs False)")
    assert verdict == claims.OTHER


@pytest.mark.parametrize("size", [(128, 64), (2048, 1024)])
def test_elsewhere_narrow_networks_are_compared_as_the_suites_own(working_folder, size):
    narrow = {"options": {"width": 0.0625}}
    ((on, verdict),) = claims_on(working_folder, {"size": list(size)}, pix2pixhd=narrow, msgunet=narrow).values()
    assert on.endswith("native protocol (not in the paper)")
    assert verdict == claims.OPEN


def test_the_suite_of_the_paper_has_its_networks(monkeypatch):
    monkeypatch.chdir(claims.__file__.rsplit("/", 3)[0])
    from msgunet.suite.plan import load_plan

    runs = load_plan("paper").runs
    assert {other_network(run.settings) for run in runs} == {""}
    assert {run.settings.entry for run in runs} >= {"pix2pixhd", "pix2pixhd_global", "msgunet"}
