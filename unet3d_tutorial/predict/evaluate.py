"""From a checkpoint to the scores of a run: what ``unet3d evaluate`` does."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..baseline import classical_baseline
from ..config import Config
from ..dataset import list_cases
from ..evaluation import (
    Evaluation,
    Results,
    StructureScore,
    evaluate_cases,
    mean_scores,
    scores_table,
    summary_table,
    write_csv,
)
from ..files.nifti import load_volume
from ..files.tables import Table
from ..files.whole import written_whole
from ..inference import Predictor, segment
from ..postprocessing import clean
from ..runs.networks import trained_predictor
from ..sample_ct import SampleUnavailable, fetch
from ..transforms import Compose, ConvertLabel, LoadData, convert_files
from ..view.scores import score_box_rows
from ..volume import Volume

#: The file with all scores; the table and the plot have the same name with .csv and .png.
EVALUATION = "evaluation.json"
#: Names of the two data sets that are scored.
REAL, HELD_OUT = "real CT", "held-out phantoms"
#: Settings of ``inference`` that skip all postprocessing of the network's mask.
WITHOUT_REPAIRS = {"largest_component": False, "whole_air": False, "fill_holes": False}
PLOT_DPI = 100
INFINITE = float("inf")

NamedCase = tuple[str, Volume, Volume]  #: name, image, reference
DataSets = dict[str, Iterable[NamedCase]]  #: cases by the name of their data set


def segment_all(image: Volume, network: Predictor, config: Config) -> dict[str, Volume]:
    """Segment one scan with each method of the comparison; return the masks by method.

    The methods are the network without postprocessing, the network cleaned as ``config.inference``
    says, and the classical baseline.
    """
    raw = segment(image, network, config.updated({"inference": WITHOUT_REPAIRS}))
    return {
        "network, raw": raw,
        "network, cleaned": replace(raw, array=clean(raw.array, image, config)),
        "classical baseline": classical_baseline(image),
    }


def evaluate_run(
    config: Config, checkpoint: str | Path | None = None, folder: str | Path | None = None
) -> str:
    """Score a run and the classical baseline, write the results, and return the tables as text.

    The cases are the real CT and the held-out volumes, or those of ``folder`` (``image/`` and
    ``seg/``, with the same file names). If the real CT is neither cached nor available online, only
    the held-out volumes are scored, and the text says so. ``checkpoint`` of ``None`` takes the
    run's weights.

    Writes ``evaluation.json``, ``evaluation.csv`` (a row for each case and structure) and
    ``evaluation.png`` (box plots of each data set) to ``config.train.output_path``. For a
    ``folder`` its name is added to the file names.
    """
    network = trained_predictor(config, checkpoint)
    data_sets, notes = _data_sets(config, folder)
    path = Path(config.train.output_path) / _file_name(folder)
    # Fail before the work if the folder cannot be created.
    path.parent.mkdir(parents=True, exist_ok=True)

    def masks(image: Volume) -> dict[str, Volume]:
        return segment_all(image, network, config)

    results = {name: evaluate_cases(cases, masks) for name, cases in data_sets.items()}
    _write_evaluation(results, path)
    tables = [f"{name}\n\n{_table(methods)}" for name, methods in results.items()]
    return "\n\n".join([*notes, *tables])


def _file_name(folder: str | Path | None) -> str:
    """The name of the file with the scores; it includes the name of ``folder`` if one is given."""
    return f"evaluation-{Path(folder).resolve().name}.json" if folder else EVALUATION


def _table(methods: Results) -> Table:
    """The scores of one case, or the summary of several."""
    if all(len(cases) == 1 for cases in methods.values()):
        return scores_table({method: mean_scores(cases) for method, cases in methods.items()})
    return summary_table(methods)


# ---------------------------------------------------------------------------------------- the cases


def _data_sets(config: Config, folder: str | Path | None) -> tuple[DataSets, list[str]]:
    """The data sets to score, and notes for the reader."""
    if folder:
        return {Path(folder).resolve().name: _stored_cases(list_cases(folder), config)}, []
    held_out = _stored_cases(list_cases(Path(config.data.data_path) / "val"), config)
    try:
        sample = fetch()
    except SampleUnavailable as error:
        return {HELD_OUT: held_out}, [str(error)]
    real = (REAL, load_volume(sample.image), load_volume(sample.label))
    return {REAL: [real], HELD_OUT: held_out}, []


def _stored_cases(files: list[tuple[Path, Path]], config: Config) -> Iterator[NamedCase]:
    """Yield name, image in HU and class numbers of every case; each is read when needed."""
    steps = Compose([LoadData(), ConvertLabel(config.data.lower_limit, config.data.upper_limit)])
    split_folder = files[0][0].parents[1]
    for image_path, label_path in tqdm(files, desc=str(split_folder), unit="case"):
        image, label = convert_files(steps, image_path, label_path)
        assert label is not None, "there is one for each image"
        yield image_path.name.removesuffix(".nii.gz"), image, label


# ---------------------------------------------------------------------------------------- the files


def _write_evaluation(results: dict[str, Results], path: Path) -> None:
    """Write the table, the box plots and finally the JSON file, which shows that all is done."""
    write_csv(results, path.with_suffix(".csv"))
    figure = score_box_rows(results)
    with written_whole(path.with_suffix(".png")) as part:
        figure.savefig(part, dpi=PLOT_DPI)
    text = json.dumps(_to_json(results), indent=1, allow_nan=False)
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")


def load_cases(folder: str | Path) -> dict[str, Results]:
    """Read the scores that :func:`evaluate_run` wrote, by data set, method and case."""
    return _from_json(json.loads((Path(folder) / EVALUATION).read_text(encoding="utf-8")))


def load_evaluation(folder: str | Path) -> dict[str, dict[str, Evaluation]]:
    """Read the mean scores of what :func:`evaluate_run` wrote, by data set and method.

    For each structure, distances are means over the cases in which it was found.
    """
    return {
        data: {method: mean_scores(cases) for method, cases in methods.items()}
        for data, methods in load_cases(folder).items()
    }


def _to_json(results: dict[str, Results]) -> dict[str, Any]:
    """Convert scores to plain dictionaries for JSON; an infinite distance becomes ``None``.

    JSON has no infinity.
    """
    plain: dict[str, Any] = {}
    for data, methods in results.items():
        plain[data] = {}
        for method, cases in methods.items():
            plain[data][method] = {
                case: [_exchanged(asdict(score), INFINITE, None) for score in scores]
                for case, scores in cases.items()
            }
    return plain


def _from_json(plain: dict[str, Any]) -> dict[str, Results]:
    """Convert the dictionaries of :func:`_to_json` back to scores."""
    results: dict[str, Results] = {}
    for data, methods in plain.items():
        results[data] = {}
        for method, cases in methods.items():
            results[data][method] = {
                case: Evaluation(StructureScore(**_exchanged(row, None, INFINITE)) for row in rows)
                for case, rows in cases.items()
            }
    return results


def _exchanged(row: dict[str, Any], old: float | None, new: float | None) -> dict[str, Any]:
    """The row with each value ``old`` replaced by ``new``."""
    return {name: new if value == old else value for name, value in row.items()}
