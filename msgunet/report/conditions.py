"""The conditions of several trainings in one sentence."""

from collections.abc import Sequence

from msgunet.report.collect import Run, training_conditions


def shared_conditions(rows: Sequence[Sequence[Run]]) -> str:
    """Describe the trainings behind several rows: first what all have in common, then what differs.

    Args:
        rows: the runs of each row, one per seed. Their settings differ only in the seed; durations and memory are those
            of the first.

    """
    titles = [runs[0].title for runs in rows]
    parts = [training_conditions(runs[0].settings, runs[0].facts()) for runs in rows]
    common = [part for part in parts[0] if all(part in others for others in parts)] if len(rows) > 1 else []
    own = [[part for part in of_row if part not in common] for of_row in parts]
    sentences = [f"All methods: {', '.join(common)}"] if common else []
    sentences += [f"{title}: {', '.join(rest)}" for title, rest in zip(titles, own, strict=True) if rest]
    return "; ".join(sentences)
