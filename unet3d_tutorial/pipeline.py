"""From a checkpoint to results: the trained network, and the scores of a run. What ``unet3d evaluate`` does."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .config import Config
from .dataset import list_cases
from .evaluation import StructureScore, classical_baseline, evaluate, scores_table
from .inference import Predictor, keep_largest_component, segment
from .runtime import setup
from .sample_ct import SampleUnavailable, fetch
from .training import FINAL, load_network, predictor
from .transforms import ConvertLabel
from .volume import Volume, load_volume

EVALUATION = "evaluation.json"
REAL, HELD_OUT = "real CT", "held-out phantoms"


def trained_predictor(config: Config, checkpoint: str | Path | None = None) -> Predictor:
    """The trained network of a run as a function on NumPy arrays; ``checkpoint`` in place of the run's own weights."""
    setup(seed=config.train.seed, device_target=config.train.device_target)
    return predictor(load_network(config, checkpoint or Path(config.train.output_path) / FINAL))


def compare_methods(image: Volume, reference: Volume, network: Predictor, config: Config) -> dict[str, list[StructureScore]]:
    """Score the network, raw and with only the largest components, beside the classical baseline, on the scan's grid."""
    raw = segment(image, network, config.updated({"inference": {"largest_component": False}}))
    cleaned = replace(raw, array=keep_largest_component(raw.array))
    masks = {"network, raw": raw, "network, largest component": cleaned, "classical baseline": classical_baseline(image)}
    return {method: evaluate(mask, reference) for method, mask in masks.items()}


def evaluate_run(config: Config, checkpoint: str | Path | None = None) -> str:
    """Score a run on the real CT and on the held-out phantoms; write ``evaluation.json`` beside it and give the tables.

    Without the real CT (no network, not cached) only the phantoms are scored, and the text says so.
    """
    network = trained_predictor(config, checkpoint)
    results, texts = {}, []
    try:
        sample = fetch()
        results[REAL] = compare_methods(load_volume(sample.image), load_volume(sample.label), network, config)
        texts.append(f"{REAL}\n\n{scores_table(results[REAL])}")
    except SampleUnavailable as error:
        texts.append(str(error))
    results[HELD_OUT] = _mean_over_phantoms(network, config)
    texts.append(f"{HELD_OUT}, means\n\n{scores_table(results[HELD_OUT])}")
    path = Path(config.train.output_path) / EVALUATION
    part = path.with_name(path.name + ".part")
    rows = {data: {method: [asdict(row) for row in rows] for method, rows in methods.items()}
            for data, methods in results.items()}
    part.write_text(json.dumps(rows, indent=1))
    part.replace(path)
    return "\n\n".join(texts)


def load_evaluation(folder: str | Path) -> dict[str, dict[str, list[StructureScore]]]:
    """Read what :func:`evaluate_run` wrote: data, then method, then one row a structure."""
    stored = json.loads((Path(folder) / EVALUATION).read_text())
    return {data: {method: [StructureScore(**row) for row in rows] for method, rows in methods.items()}
            for data, methods in stored.items()}


def _mean_over_phantoms(network: Predictor, config: Config) -> dict[str, list[StructureScore]]:
    convert = ConvertLabel(config.data.lower_limit, config.data.upper_limit)
    found: dict[str, list[list[StructureScore]]] = {}
    for image_path, label_path in tqdm(list_cases(Path(config.data.data_path) / "val"), desc="held-out phantoms"):
        image, label = convert(load_volume(image_path), load_volume(label_path))
        for method, rows in compare_methods(image, label, network, config).items():
            found.setdefault(method, []).append(rows)
    return {method: [_mean(rows) for rows in zip(*cases, strict=True)] for method, cases in found.items()}


def _mean(rows: tuple[StructureScore, ...]) -> StructureScore:
    numbers = {name: float(np.mean([getattr(row, name) for row in rows])) for name in asdict(rows[0]) if name != "structure"}
    return StructureScore(rows[0].structure, **numbers)
