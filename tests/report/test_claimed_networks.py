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


@pytest.mark.parametrize(
    "option", [{"discriminators": "joint"}, {"source_scales": "first"}, {"skips": "concatenate"}, {"norm": "instance"}]
)
def test_each_option_of_the_design_makes_another_network(working_folder, option):
    ((on, verdict),) = claims_on(
        working_folder, {"size": [512, 512]}, pix2pixhd={}, msgunet={"options": option}
    ).values()
    ((name, value),) = option.items()
    assert on.endswith(f"(not the paper's networks: MSG U-Net: {name} {value})")
    assert verdict == claims.OTHER


def test_the_paper_does_not_speak_of_variants_of_the_reference_entry(working_folder):
    """Neither its claims nor its numbers: those of another loss would pass for the paper's otherwise."""
    methods = {
        "pix2pixhd": {},
        "msgunet": {},
        "no_features": {"method": "msgunet", "title": "No features", "options": {"alpha": 0}},
    }
    given = {"datasets": {"maps": {"size": [512, 512]}}, "methods": methods, "ablation": {"methods": ["no_features"]}}
    for comparison, variants in (({}, 1), ({"comparison": {"reference": "msgunet"}}, 0)):
        plan = make_plan(working_folder, **given, **comparison)
        frames = build_tables(Collection(plan.results / "settings" / "report.json", plan.results)).frames
        assert frames["claims"]["claim"].str.startswith("No features is close").sum() == variants
        assert frames["claims"]["claim"].str.startswith("No features is as good").sum() == variants
        assert "MSG U-Net is close to Pix2Pix-HD" in set(frames["claims"]["claim"])
        table = frames["table1"][frames["table1"]["protocol"] == "native"].set_index("entry")
        assert table.loc[["pix2pixhd", "msgunet"], "paper_psnr"].notna().all()
        assert table["paper_psnr"].notna()["no_features"] == bool(variants)


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
