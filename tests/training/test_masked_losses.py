import archive_cases as cases
import pytest
import torch

from pdesurrogate.data.archive import Archive
from pdesurrogate.data.datamodule import ForecastData
from pdesurrogate.training.losses import MeanSquaredError, RelativeL2Joint, RelativeL2PerChannel


@pytest.mark.parametrize("loss", [MeanSquaredError(), RelativeL2PerChannel(), RelativeL2Joint()])
def test_solid_points_do_not_count(tmp_path, loss):
    cases.write(tmp_path / "train.nc")
    (batch,) = ForecastData(Archive(tmp_path), batch_size=25).train_dataloader()
    solid = ~batch.context.mask[:, None, None].expand_as(batch.target)
    prediction = batch.target + 0.5
    whole = loss.distance(prediction, batch.target, batch.context, cases.GRID)
    changed = loss.distance(prediction + 9 * solid, batch.target, batch.context, cases.GRID)
    assert torch.equal(whole, changed)
    assert whole > 0


def test_statistics_are_those_of_the_fluid(tmp_path):
    cases.write(tmp_path / "train.nc")
    found = ForecastData(Archive(tmp_path)).statistics
    v = cases.values().double()
    fluid = torch.cat([v[c][..., m].permute(1, 0, 2).flatten(1) for c, m in enumerate(cases.masks())], 1)
    torch.testing.assert_close(found.mean, fluid.mean(1).float())
    torch.testing.assert_close(found.std, fluid.std(1, correction=0).float())
    d = torch.cat([v[c].diff(dim=0)[..., m].permute(1, 0, 2).flatten(1) for c, m in enumerate(cases.masks())], 1)
    torch.testing.assert_close(found.increment_rms, d.square().mean(1).sqrt().float())
