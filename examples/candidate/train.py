"""Train both models and write their files. Version 1 knows the sepals alone, version 2 all measurements.

python examples/candidate/train.py    (requires scikit-learn)
"""

import json
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

MEASUREMENTS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
FOLDER = Path(__file__).parent

if __name__ == "__main__":
    flowers, species = load_iris(return_X_y=True)
    for version, count in ((1, 2), (2, 4)):
        classifier = LogisticRegression(max_iter=1000).fit(flowers[:, :count], species)
        model = {
            "measurements": MEASUREMENTS[:count],
            "weights": classifier.coef_.round(3).tolist(),
            "biases": classifier.intercept_.round(3).tolist(),
        }
        (FOLDER / f"model-{version}.json").write_text(json.dumps(model) + "\n")
        print(
            f"version {version}: {classifier.score(flowers[:, :count], species):.0%} of the flowers are right"
        )
