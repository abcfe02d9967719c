"""Train an iris classifier and write model/1/classifier.joblib: `python train.py`."""

from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent


def main() -> None:
    flowers = load_iris()
    model = LogisticRegression(max_iter=1000).fit(flowers.data, flowers.target_names[flowers.target])
    file = HERE / "model" / "1" / "classifier.joblib"
    file.parent.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, file)
    print(f"{file.name} ({file.stat().st_size} bytes) is written")


if __name__ == "__main__":
    main()
