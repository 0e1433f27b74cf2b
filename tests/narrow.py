"""Options that make the networks of each method narrow, by the name that tests use."""

NARROW = {
    "msgunet": {"width": 0.0625, "discriminator_width": 0.0625, "scales": 2},
    # Deep enough to use dropout.
    "pix2pix": {"width": 0.0625, "discriminator_width": 0.0625, "downsamplings": 6},
    # A margin above the distance, so that the discriminator's term is active.
    "pan": {"width": 0.0625, "discriminator_width": 0.0625, "downsamplings": 4, "margin": 50},
    "pix2pixhd": {"width": 0.0625, "discriminator_width": 0.0625, "downsamplings": 2, "blocks": 1},
}
NARROW["pix2pixhd_local"] = NARROW["pix2pixhd"] | {"generator": "local", "coarse_epochs": 1, "freeze_epochs": 1}

NARROW["spade"] = {"width": 0.0625, "discriminator_width": 0.0625}
NARROW["unet_l1"] = {"width": 0.0625, "downsamplings": 6}
NARROW["unet_l1_msgunet"] = {"generator": "msgunet", "width": 0.0625, "scales": 2}
# Each option of MSG U-Net's design at another value than the paper's.
DESIGN = {
    "msgunet_joint": {"discriminators": "joint"},
    "msgunet_full": {"discriminators": "full"},
    "msgunet_first": {"source_scales": "first"},
    "msgunet_concatenate": {"skips": "concatenate"},
    "msgunet_instance": {"norm": "instance"},
    "msgunet_single": {"intermediate_outputs": False},
    "msgunet_alpha": {"alpha": 0.0},
    "msgunet_beta": {"beta": 0.0},
    "msgunet_cross_entropy": {"adversarial": "cross_entropy"},
}
NARROW |= {name: NARROW["msgunet"] | options for name, options in DESIGN.items()}
