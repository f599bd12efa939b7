"""Evaluates LightGBM and the trained no-show model on the same rows: see scripts/compare-no-show."""

import json
import sys
import warnings

import lightgbm
import numpy
import pandas
from sklearn.metrics import log_loss, roc_auc_score

warnings.filterwarnings("ignore")
HALF_LIFE_DAYS = 28
PRIOR_VISITS = 100
HEAD = ["appointment_id", "at", "instant", "booked_at", "known_at", "missed", "two_counters"]


def ece(score, missed, bins=10):
    order = numpy.argsort(score, kind="stable")
    gaps = (len(part) * abs(score[part].mean() - missed[part].mean()) for part in numpy.array_split(order, bins))
    return sum(gaps) / len(score)


def print_row(name, score, rows):
    missed, ahead = rows["missed"].to_numpy(), rows["lead_days"].to_numpy() >= 1
    cells = []
    for part in (slice(None), ahead):
        s, m = score[part], missed[part]
        cells.append(f"{roc_auc_score(m, s):9.4f}{log_loss(m, s):10.4f}{ece(s, m):9.4f}")
    print(f"{name:<40}{cells[0]}   {cells[1]}")


def line(odds, missed, weight):
    """Intercept and slope around the mean, with a prior worth PRIOR_VISITS outcomes."""
    middle = (weight * odds).sum() / weight.sum()
    p = 1 / (1 + numpy.exp(-odds))
    prior = max((weight * p * (1 - p)).sum() / weight.sum(), 1e-3) * PRIOR_VISITS
    up, turn, x = 0.0, 1.0, odds - middle
    for _ in range(25):
        p = 1 / (1 + numpy.exp(-(middle + up + turn * x)))
        gap, sure = weight * (missed - p), weight * p * (1 - p)
        slope = numpy.array([gap.sum() - prior * up, (gap * x).sum() - prior * (turn - 1)])
        curve = numpy.array([[sure.sum() + prior, (sure * x).sum()], [(sure * x).sum(), (sure * x * x).sum() + prior]])
        step = numpy.linalg.solve(curve, slope)
        up, turn = up + step[0], turn + step[1]
        if abs(step).max() < 1e-9:
            break
    return lambda z: middle + up + turn * (z - middle)


def recalibrated(rows, score, source, source_score):
    """Corrects each score by the outcomes known on its day, separately for same-day visits and others."""
    odds, known_odds = numpy.log(score / (1 - score)), numpy.log(source_score / (1 - source_score))
    out, days = odds.copy(), rows["instant"].dt.floor("D")
    for day in days.unique():
        for ahead in (False, True):
            here = ((days == day) & ((rows["lead_days"] >= 1) == ahead)).to_numpy()
            known = ((source["known_at"] <= day) & ((source["lead_days"] >= 1) == ahead)).to_numpy()
            if here.any() and known.any():
                age = (day - source["known_at"][known]).dt.total_seconds().to_numpy() / 86400
                fitted = line(known_odds[known], source["missed"].to_numpy()[known], 0.5 ** (age / HALF_LIFE_DAYS))
                out[here] = fitted(odds[here])
    return 1 / (1 + numpy.exp(-out))


def main(work, until):
    rows = pandas.read_csv(f"{work}/rows.csv", dtype={"appointment_id": str})
    # LightGBM does not allow colons in names.
    rows.columns = [column.replace(":", "_") for column in rows.columns]
    for column in ("instant", "booked_at", "known_at"):
        rows[column] = pandas.to_datetime(rows[column], utc=True)
    until = pandas.Timestamp(until)
    inputs = [column for column in rows.columns if column not in HEAD]
    for column in inputs:
        if rows[column].dtype == object or str(rows[column].dtype) in ("str", "string"):
            rows[column] = rows[column].astype("category")
    known = (rows["known_at"] <= until) & (rows["instant"] <= until)
    later = rows["booked_at"] > until
    numbers = [column for column in inputs if str(rows[column].dtype) != "category"]
    with open(f"{work}/model.json", encoding="utf-8") as document:
        terms = json.load(document)["terms"]
    selected = list(dict.fromkeys(term["input"].replace(":", "_") for term in terms))
    print("inputs of our model:", ", ".join(selected))
    print(f"\n{'':<40}{'ROC AUC':>9}{'log loss':>10}{'ECE':>9}   {'ROC AUC':>9}{'log loss':>10}{'ECE':>9}")
    for at in ("booking", "24h"):
        here, judged = rows["at"] == at, rows[(rows["at"] == at) & later]
        print(f"{at}: {len(judged)} later rows; right columns: only leads of a day or more")
        with open(f"{work}/{at}.jsonl", encoding="utf-8") as lines:
            scores = {entry["appointment_id"]: entry["score"] for entry in map(json.loads, lines)}
        print_row("two counters", judged["two_counters"].to_numpy(), judged)
        print_row("Foretell, recalibrated", judged["appointment_id"].map(scores).to_numpy(float), judged)
        candidates = [
            ("LightGBM", selected, here & known),
            ("LightGBM, of both moments", selected, known),
            ("LightGBM, all inputs", numbers, here & known),
            ("LightGBM, and texts", inputs, here & known),
        ]
        for name, columns, training in candidates:
            if columns is inputs and columns == numbers:
                continue
            model = lightgbm.LGBMClassifier(
                n_estimators=200, learning_rate=0.03, num_leaves=15, min_child_samples=50, random_state=7, verbose=-1
            )
            model.fit(rows.loc[training, columns], rows.loc[training, "missed"])
            of_here = rows[here]
            all_scores = numpy.clip(model.predict_proba(of_here[columns])[:, 1], 1e-6, 1 - 1e-6)
            ours = all_scores[(of_here["booked_at"] > until).to_numpy()]
            print_row(name, ours, judged)
            print_row(f"{name}, recalibrated", recalibrated(judged, ours, of_here, all_scores), judged)


main(sys.argv[1], sys.argv[2])
