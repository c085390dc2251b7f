import lightning
import pytest
import torch
from jsonargparse import ArgumentParser

from pdesurrogate.data.adapters.gpme import GpmeNpz
from pdesurrogate.data.point_data import PointData, PointSource
from pdesurrogate.fields.point_set import PointSet
from pdesurrogate.physics.gpme import PorousMedium
from pdesurrogate.simulators.gpme_samples import GpmeSamples


class Given:
    """Functions at hand, numbered by their parameter."""

    def __init__(self, functions=10, context=3, target=4, dimension=2, fields=1, **changed):
        generator = torch.Generator().manual_seed(0)
        shapes = [(context, dimension), (context, fields), (target, dimension), (target, fields)]
        leaves = [torch.rand(functions, *shape, generator=generator) for shape in shapes]
        self._points = PointSet(*leaves, torch.arange(float(functions))[:, None])._replace(**changed)

    def points(self):
        return self._points


def numbers(loader):
    return [batch.parameters.flatten().int().tolist() for batch in loader]


def test_a_batch_is_whole_and_its_rows_belong_together():
    source = Given()
    for batch in PointData(source, batch_size=4).train_dataloader():
        assert type(batch) is PointSet
        rows = batch.parameters[:, 0].long()
        assert all(torch.equal(leaf, whole[rows]) for leaf, whole in zip(batch, source.points(), strict=True))


def test_the_order_follows_from_seed_and_epoch():
    def epochs(seed, count=2):
        loader = PointData(Given(40), batch_size=4, seed=seed).train_dataloader()
        orders = []
        for epoch in range(count):
            loader.sampler.set_epoch(epoch)
            orders.append(numbers(loader))
        return orders

    first, second = epochs(1)
    assert epochs(1) == [first, second]
    assert first != second
    assert epochs(2)[0] != first
    for order in (first, second):
        assert sorted(number for batch in order for number in batch) == list(range(40))


def test_functions_that_fill_no_batch_are_left_out_of_training_alone():
    data = PointData(Given(10), val=Given(10), test=Given(7), batch_size=4)
    assert [len(batch) for batch in numbers(data.train_dataloader())] == [4, 4]
    assert numbers(data.val_dataloader()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert numbers(data.test_dataloader()) == [[0, 1, 2, 3], [4, 5, 6]]


def test_a_loader_goes_on_in_the_middle_of_an_epoch():
    def loader():
        return PointData(Given(40), batch_size=4, seed=3).train_dataloader()

    whole, cut, rest = numbers(loader()), loader(), loader()
    given_out = iter(cut)
    for _ in range(3):
        next(given_out)
    rest.load_state_dict(cut.state_dict())
    assert numbers(rest) == whole[3:]


class Recorder(lightning.LightningModule):
    """Fits the mean of the target values; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        assert type(batch) is PointSet
        self.seen.append(batch.parameters.flatten().int().tolist())
        return (batch.target_values - self.mean).square().mean()

    def validation_step(self, batch, batch_idx):
        assert type(batch) is PointSet

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stop(lightning.Callback):
    """Keeps the state after a step, as a checkpoint callback does."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == 8:
            trainer.save_checkpoint(self.path)


def test_training_goes_on_bit_equal_in_the_middle_of_an_epoch(tmp_path):
    def fitted(callbacks=(), **options):
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", use_distributed_sampler=False, callbacks=list(callbacks), **quiet
        )
        module = Recorder()
        trainer.fit(module, PointData(Given(12), val=Given(3), batch_size=2, seed=4), **options)
        return module

    path = tmp_path / "stopped.ckpt"
    whole = fitted([Stop(path)])
    assert len(whole.seen) == 12
    assert whole.seen[:6] != whole.seen[6:]
    resumed = fitted(ckpt_path=path, weights_only=True)
    assert resumed.seen == whole.seen[8:]
    assert torch.equal(resumed.mean, whole.mean)


def test_files_and_generators_are_sources_by_class_path():
    parser = ArgumentParser()
    parser.add_class_arguments(PointData, "data")
    generator = {
        "class_path": "pdesurrogate.simulators.gpme_samples.GpmeSamples",
        "init_args": {"equation": {"class_path": "pdesurrogate.physics.gpme.PorousMedium"}, "functions": 5},
    }
    published = {"class_path": "pdesurrogate.data.adapters.gpme.GpmeNpz", "init_args": {"path": "pme_valid"}}
    config = parser.parse_object({"data": {"train": generator, "val": published, "batch_size": 5}})
    data = parser.instantiate_classes(config).data
    assert isinstance(data.sources["train"], GpmeSamples)
    assert isinstance(data.sources["train"].equation, PorousMedium)
    assert isinstance(data.sources["val"], GpmeNpz)
    assert all(isinstance(source, PointSource) for source in data.sources.values())
    assert (data.dimension, data.fields) == (2, 1)
    assert len(numbers(data.train_dataloader())) == 1


def test_sizes_are_those_of_the_first_source():
    data = PointData(test=Given(dimension=3, fields=2))
    assert (data.dimension, data.fields) == (3, 2)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_source_is_refused(split):
    data = PointData(test=Given())
    with pytest.raises(ValueError, match=rf"Expected a split among \('test',\) but got '{split}'; give it a source"):
        getattr(data, f"{split}_dataloader")()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"seed": -1}])
def test_bad_arguments_are_refused(options):
    with pytest.raises(ValueError, match="batch_size >= 1 and seed >= 0"):
        PointData(Given(), **options)


def test_no_source_at_all_is_refused():
    with pytest.raises(ValueError, match="train, val and test are all missing"):
        PointData()


def test_too_few_functions_for_a_batch_are_refused():
    with pytest.raises(ValueError, match="smaller batch_size"):
        PointData(Given(3), batch_size=4).train_dataloader()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context_values": torch.rand(10, 3)}, "context_values of train with 3 axes"),
        ({"context_points": torch.rand(10, 0, 2)}, "context_points of train with 3 axes, functions in front, none of"),
        ({"parameters": torch.arange(10)[:, None]}, "parameters of train .* real numbers but got .*int64"),
        ({"target_values": torch.full((10, 4, 1), torch.nan)}, "target_values of train function 0 holds NaN"),
        ({"target_values": torch.rand(9, 4, 1)}, "as many functions everywhere"),
        ({"target_values": torch.rand(10, 5, 1)}, "a value for each point"),
        ({"target_points": torch.rand(10, 4, 3)}, "targets like contexts"),
        ({"target_values": torch.rand(10, 4, 2)}, "targets like contexts"),
        ({"parameters": torch.rand(10, 1).double()}, "all of one precision"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        PointData(Given(**changed)).points("train")


@pytest.mark.parametrize("options", [{"dimension": 3}, {"fields": 2}])
def test_splits_that_differ_are_refused(options):
    data = PointData(Given(), val=Given(**options))
    data.points("train")
    with pytest.raises(ValueError, match=r"Expected val to have 2 coordinates and 1 fields, torch\.float32, as train"):
        data.points("val")
