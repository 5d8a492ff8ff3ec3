"""From a checkpoint to results: the trained network, and the scores of a run.

What ``unet3d evaluate`` does.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from ..config import Config
from ..dataset import list_cases
from ..evaluation import (
    Results,
    StructureScore,
    classical_baseline,
    evaluate_cases,
    mean_scores,
    scores_table,
    summary_table,
    write_csv,
)
from ..inference import Predictor, clean, segment
from ..runs.networks import trained_predictor
from ..sample_ct import SampleUnavailable, fetch
from ..transforms import Compose, ConvertLabel, LoadData, convert_files
from ..view.scores import score_box_rows
from ..volume import Volume, load_volume

EVALUATION = "evaluation.json"
REAL, HELD_OUT = "real CT", "held-out phantoms"
Case = tuple[str, Volume, Volume]  # name, image, reference


def segment_all(image: Volume, network: Predictor, config: Config) -> dict[str, Volume]:
    """Masks of one scan: the network's, raw and cleaned as ``config.inference`` says, and the
    classical baseline's.
    """
    unmended = {"largest_component": False, "whole_air": False, "fill_holes": False}
    raw = segment(image, network, config.updated({"inference": unmended}))
    cleaned = replace(raw, array=clean(raw.array, image, config))
    return {
        "network, raw": raw,
        "network, cleaned": cleaned,
        "classical baseline": classical_baseline(image),
    }


def evaluate_run(
    config: Config, checkpoint: str | Path | None = None, folder: str | Path | None = None
) -> str:
    """Score a run and the classical baseline, write the results to ``config.train.output_path``,
    and give the tables.

    Scored are the real CT and the held-out volumes, or the cases of ``folder`` (``image/`` and
    ``seg/``, files of the same names). Without the real CT (no network, not cached) only the
    held-out volumes are scored, and the text says so. Writes ``evaluation.json``,
    ``evaluation.csv`` (a line for each case and structure) and ``evaluation.png`` (box plots of
    each data set); for a ``folder`` its name is added to theirs.
    """
    network = trained_predictor(config, checkpoint)
    data, notes = _data_sets(config, folder)
    target = Path(config.train.output_path) / (
        f"evaluation-{Path(folder).resolve().name}.json" if folder else EVALUATION
    )
    # What cannot be written is better known before the work.
    target.parent.mkdir(parents=True, exist_ok=True)
    results = {
        name: evaluate_cases(cases, lambda image: segment_all(image, network, config))
        for name, cases in data.items()
    }
    _write_evaluation(results, target)
    return "\n\n".join(
        [*notes, *(f"{name}\n\n{_table(methods)}" for name, methods in results.items())]
    )


def _table(methods: Results) -> str:
    """The scores of one case, or the summary of several."""
    if all(len(cases) == 1 for cases in methods.values()):
        return scores_table({method: mean_scores(cases) for method, cases in methods.items()})
    return summary_table(methods)


def _data_sets(
    config: Config, folder: str | Path | None
) -> tuple[dict[str, Iterable[Case]], list[str]]:
    """Cases by the name of their data set, and what there is to say about them."""
    if folder:
        return {Path(folder).resolve().name: _stored_cases(list_cases(folder), config)}, []
    held_out = _stored_cases(list_cases(Path(config.data.data_path) / "val"), config)
    try:
        sample = fetch()
    except SampleUnavailable as error:
        return {HELD_OUT: held_out}, [str(error)]
    return {
        REAL: [(REAL, load_volume(sample.image), load_volume(sample.label))],
        HELD_OUT: held_out,
    }, []


def _stored_cases(files: list[tuple[Path, Path]], config: Config) -> Iterator[Case]:
    """Name, image and class numbers of every case, read when its turn comes."""
    steps = Compose([LoadData(), ConvertLabel(config.data.lower_limit, config.data.upper_limit)])
    for image_path, label_path in tqdm(files, desc=str(files[0][0].parents[1]), unit="case"):
        yield image_path.name.removesuffix(".nii.gz"), *convert_files(steps, image_path, label_path)


def _write_evaluation(results: dict[str, Results], path: Path) -> None:
    """Write the box plots, the table and, last, the JSON file that says that all is there."""
    write_csv(results, path.with_suffix(".csv"))
    drawn = score_box_rows(results)
    part = path.with_name(path.stem + ".part.png")
    drawn.savefig(part, dpi=100)
    part.replace(path.with_suffix(".png"))
    rows = {
        data: {
            method: {case: [_finite(asdict(row)) for row in rows] for case, rows in cases.items()}
            for method, cases in methods.items()
        }
        for data, methods in results.items()
    }
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(rows, indent=1, allow_nan=False), encoding="utf-8")
    part.replace(path)


def load_cases(folder: str | Path) -> dict[str, Results]:
    """Read what :func:`evaluate_run` wrote: data, then method, then case, then one row a structure."""
    stored = json.loads((Path(folder) / EVALUATION).read_text(encoding="utf-8"))
    return {
        data: {
            method: {
                case: [StructureScore(**_infinite(row)) for row in rows]
                for case, rows in cases.items()
            }
            for method, cases in methods.items()
        }
        for data, methods in stored.items()
    }


def load_evaluation(folder: str | Path) -> dict[str, dict[str, list[StructureScore]]]:
    """Means over the cases: data, then method, then one row a structure.

    Distances are means over the cases found.
    """
    return {
        data: {method: mean_scores(cases) for method, cases in methods.items()}
        for data, methods in load_cases(folder).items()
    }


def _finite(row: dict) -> dict:
    """JSON has no infinity: a distance that does not exist is null."""
    return {name: None if value == float("inf") else value for name, value in row.items()}


def _infinite(row: dict) -> dict:
    return {name: float("inf") if value is None else value for name, value in row.items()}
