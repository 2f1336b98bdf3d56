"""Callback, early stop and validation: what they see, what the store says of a run that was stopped, and that no weight changes."""

import numpy as np
import pytest
import torch

import consistency_lab as cl
from consistency_lab.store.run import Run
from consistency_lab.store.runs import Store
from consistency_lab.training import run_io
from consistency_lab.training.loop import TrainingLoop
from consistency_lab.training.train import load_snapshots, training_curves

TINY = {"network": "mlp(width=16, depth=1)", "steps": 110, "batch": 32, "lr_warmup": 5, "snapshots": 3}
TINY |= {"device": "cpu", "progress": False}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.denoiser.parameters()])


@pytest.fixture(scope="module")
def images():
    return cl.load_images("digits").take(range(300), "some digits")


@pytest.fixture(scope="module")
def plain(images):
    return cl.train(images, **TINY)


def stopping(step, seen):
    def callback(record):
        seen.append(record["step"])
        return record["step"] == step

    return callback


def test_a_callback_sees_every_record_and_changes_nothing(images, plain, tmp_path):
    records = []
    model = cl.train(images, **TINY, store=tmp_path, callback=records.append)
    assert torch.equal(weights(model), weights(plain))
    assert records == Run.open(model.folder).records()
    assert [record["step"] for record in records] == [25, 50, 75, 100, 110]
    assert set(records[0]) == {"step", "loss", "lr", "beta1", "seconds"}
    told = []
    cl.train(images, **TINY, store=tmp_path, callback=told.append)  # the store has it: its log is told
    assert told == records
    unkept = []
    cl.train(images, **TINY, callback=unkept.append)
    assert [{**x, "seconds": 0} for x in unkept] == [{**x, "seconds": 0} for x in records]


@pytest.mark.parametrize("answer", [True, np.True_])
def test_a_run_that_is_stopped_is_a_finished_run_of_another_name(images, tmp_path, answer):
    model = cl.train(images, **TINY, store=tmp_path, callback=lambda record: answer if record["step"] == 50 else None)
    assert model.name == "mlp-s0@50"
    assert model.facts["steps"] == 50
    short, whole = sorted(Store(tmp_path).runs(), key=lambda run: not run.done)
    assert (short.name, short.spec) == ("mlp-s0@50", {**whole.spec, "stopped": 50})
    assert short.summary["steps"] == 50
    assert [record["step"] for record in short.records()] == [25, 50]
    assert not whole.done
    unkept = cl.train(images, **TINY, callback=lambda record: record["step"] == 50)
    assert torch.equal(weights(unkept), weights(model))
    assert unkept.name == model.name
    assert unkept.facts["spec"] == model.facts["spec"]
    assert torch.equal(weights(cl.load("mlp-s0@50", store=tmp_path, device="cpu")), weights(model))
    steps, along = zip(*load_snapshots(model), strict=True)
    assert steps == (25, 50)
    assert torch.equal(weights(along[-1]), weights(model))


def test_a_stopped_run_is_found_again_and_the_whole_one_goes_on_to_the_bit(images, plain, tmp_path, monkeypatch):
    seen = []
    first = cl.train(images, **TINY, store=tmp_path, callback=stopping(75, seen))
    monkeypatch.setattr(run_io, "_train_in", lambda *_: pytest.fail("trained twice"))
    again = cl.train(images, **TINY, store=tmp_path, callback=stopping(75, seen))
    assert torch.equal(weights(again), weights(first))
    assert seen == [25, 50, 75] * 2
    monkeypatch.undo()
    steps, advance = [], TrainingLoop._advance
    monkeypatch.setattr(TrainingLoop, "_advance", lambda loop: steps.append(loop.step) or advance(loop))
    assert torch.equal(weights(cl.train(images, **TINY, store=tmp_path)), weights(plain))
    assert steps[0] == 75
    # A callback that would have stopped the finished run earlier: trained anew to there, as if it had stopped.
    early = cl.train(images, **TINY, store=tmp_path, callback=stopping(50, []))
    assert early.name == "mlp-s0@50"
    assert torch.equal(weights(early), weights(cl.train(images, **TINY, callback=stopping(50, []))))
    assert [record["step"] for record in Run.open(early.folder).records()] == [25, 50]


def test_what_an_interrupted_attempt_has_left_is_replaced(images, tmp_path, monkeypatch):
    """The whole run is there, the callback stops it earlier, and that is interrupted while it is trained anew."""
    cl.train(images, **TINY, store=tmp_path)
    advance = TrainingLoop._advance

    def interrupted(loop):
        if loop.step == 40:
            raise KeyboardInterrupt
        return advance(loop)

    monkeypatch.setattr(run_io, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(TrainingLoop, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cl.train(images, **TINY, store=tmp_path, callback=stopping(75, []))
    monkeypatch.setattr(TrainingLoop, "_advance", advance)
    unkept = cl.train(images, **TINY, callback=stopping(75, []))
    (half,) = [run for run in Store(tmp_path).runs() if not run.done]
    assert half.records()[-1]["step"] == 25
    for force in (False, True):  # on from the checkpoint; the whole run again, and what it was stopped at
        model = cl.train(images, **TINY, store=tmp_path, callback=stopping(75, []), force=force)
        assert [record["step"] for record in Run.open(model.folder).records()] == [25, 50, 75]
        assert torch.equal(weights(model), weights(unkept))


def test_a_stop_at_the_last_step_is_no_stop(images, plain, tmp_path):
    model = cl.train(images, **TINY, store=tmp_path, callback=lambda record: record["step"] == 110)
    assert model.name == "mlp-s0"
    assert model.facts["spec"] == plain.facts["spec"]
    assert [run.done for run in Store(tmp_path).runs()] == [True]


def test_after_ctrl_c_the_callback_stands_where_it_stood(images, tmp_path, monkeypatch):
    """Patience counts records: a resumed run must stop where the uninterrupted one stops."""

    def patient(limit=3):
        seen = []
        return seen, lambda record: seen.append(record["step"]) or len(seen) == limit

    advance = TrainingLoop._advance

    def interrupted(loop):
        if loop.step == 60:
            raise KeyboardInterrupt
        return advance(loop)

    monkeypatch.setattr(run_io, "_CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(TrainingLoop, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cl.train(images, **TINY, store=tmp_path, callback=patient()[1])
    monkeypatch.setattr(TrainingLoop, "_advance", advance)
    seen, callback = patient()
    resumed = cl.train(images, **TINY, store=tmp_path, callback=callback)
    assert seen == [25, 50, 75]
    assert resumed.name == "mlp-s0@75"
    assert torch.equal(weights(resumed), weights(cl.train(images, **TINY, callback=patient()[1])))


def test_what_a_callback_raises_interrupts_the_run(images, plain, tmp_path, monkeypatch):
    def failing(record):
        if record["step"] == 50:
            raise ConnectionError("no server")

    with pytest.raises(ConnectionError):
        cl.train(images, **TINY, store=tmp_path, callback=failing)
    steps, advance = [], TrainingLoop._advance
    monkeypatch.setattr(TrainingLoop, "_advance", lambda loop: steps.append(loop.step) or advance(loop))
    assert torch.equal(weights(cl.train(images, **TINY, store=tmp_path)), weights(plain))
    assert steps[0] == 50


def test_validation_is_the_loss_of_the_averaged_weights_over_t(images, plain, tmp_path):
    held_out = cl.load_images("digits").take(range(300, 340), "held out")
    records = []
    model = cl.train(images, **TINY, store=tmp_path, validation=held_out, callback=records.append)
    assert torch.equal(weights(model), weights(plain))  # it changes nothing
    assert [record["step"] for record in records if "validation" in record] == [100, 110]
    last = records[-1]["validation"]
    low, high = model.denoiser.schedule.t_min, model.denoiser.schedule.t_max
    assert last["t"] == pytest.approx([low + (k + 0.5) / 10 * (high - low) for k in range(10)])
    eps = cl.SharedNoise(0).draw(range(40), images.shape, stream="probe")
    for t, loss in zip(last["t"], last["losses"], strict=True):
        with torch.no_grad():
            times = torch.full((40,), t, dtype=torch.float64)
            assert loss == pytest.approx(
                float(cl.denoising_loss(model.denoiser, held_out.all(), times, eps).mean()), rel=1e-5
            )
    assert last["loss"] == pytest.approx(np.mean(last["losses"]))
    with pytest.raises(cl.UserError, match="without a validation on 'others'"):
        cl.train(images, **TINY, store=tmp_path, validation=held_out.take(range(5), "others"))


def test_validation_of_a_conditional_model_and_what_is_refused(images):
    held_out = cl.load_images("digits").take(range(300, 310), "held out")
    records = []
    cl.train(images, **{**TINY, "steps": 2}, conditional=True, validation=held_out, callback=records.append)
    assert len(records[-1]["validation"]["losses"]) == 10
    bare = cl.ImageSet("bare", held_out.pixels)
    for options, message in [
        ({"validation": bare, "conditional": True}, "'bare' has no labels"),
        ({"validation": cl.load_images("digits(size=16)").take(range(5), "large")}, r"has images of \(1, 16, 16\)"),
        ({"validation": held_out, "validate_every": 30}, "a multiple of 25"),
        ({"validation": held_out.all().numpy()}, "image set"),
        ({"callback": 3}, "a function of a record"),
    ]:
        with pytest.raises(cl.UserError, match=message):
            cl.train(images, **TINY, **options)


def test_training_curves_hold_what_was_validated_and_not_more(images, tmp_path):
    watched = cl.train(
        images, **TINY, seed=1, store=tmp_path, validation=images.take(range(20), "held"), validate_every=50
    )
    curves = training_curves([watched, cl.train(images, **TINY, store=tmp_path)])
    records = {record["step"]: record for record in Run.open(watched.folder).records()}
    known = curves["held_out"].sel(model=watched.name).dropna("step")
    assert {int(step): float(known.sel(step=step)) for step in known["step"]} == {
        step: records[step]["validation"]["loss"] for step in (50, 100, 110)
    }
    assert curves["held_out"].isel(model=1).isnull().all()
