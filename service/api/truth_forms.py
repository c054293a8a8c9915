"""The form in which the truths of a model can be reported, from an answer to its example."""

from models.coding import example_samples
from models.samples import Columns
from models.spec import ModelSpec
from service.data.said import Form, form_of
from service.inference.engine import Engine, Loaded


class TruthForms:
    """Finds the form for the live version of a model; once, since it takes a forward pass."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._forms: dict[str, tuple[int, Form]] = {}

    async def of(self, model: str, spec: ModelSpec) -> Form:
        """Return the form; that of the spec alone while no version is loaded."""
        loaded = self._engine.loaded(model)
        if loaded is None:
            return form_of(spec)
        version, form = self._forms.get(model, (0, {}))
        if version != loaded.version:
            form = await self._asked(loaded)
            self._forms[model] = loaded.version, form
        return form

    async def _asked(self, loaded: Loaded) -> Form:
        samples = example_samples(loaded.spec, loaded.coder)
        values = await self._engine.compute(loaded, samples[:1])
        width = 0 if isinstance(values, Columns) or values.ndim != 2 else values.shape[1]
        return form_of(loaded.spec, loaded.describe(values)[0], loaded.describe, width)
