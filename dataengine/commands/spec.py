"""The spec that a dataset was rendered from."""

from dataengine.config.spec import DatasetSpec
from dataengine.errors import StoreError
from dataengine.store.dataset import Dataset


def is_rendered(dataset: Dataset) -> bool:
    """False for a dataset that was imported."""
    return "imported" not in dataset.spec


def rendered_spec(dataset: Dataset) -> DatasetSpec:
    """Raises StoreError for an imported dataset, which has none."""
    if not is_rendered(dataset):
        raise StoreError(f"{dataset.path} was imported, not rendered, so it has no spec to check against or to render from again")
    return DatasetSpec.model_validate(dataset.spec)
