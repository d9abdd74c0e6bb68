"""What every learner must do: a suite to subclass."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from anabranch.algorithms.base import Correction
from anabranch.data.federation import Examples
from anabranch.errors import AnabranchError
from anabranch.learners.base import Learner, LocalResult, TrainingJob, batch_orders
from anabranch.learners.training import LocalTraining
from anabranch.randomness import derived_seed, generator
from anabranch.updates.layout import Policy
from anabranch.updates.sections import Vector

__all__ = ["LearnerContract", "training_job"]


def training_job(
    training: LocalTraining | None = None,
    *,
    rate: float = 0.05,
    correction: Correction | None = None,
    client: str = "a",
) -> TrainingJob:
    """A job of client ``client`` in round 1 of a run with seed 0."""
    return TrainingJob(
        training=training or LocalTraining(batch_size=8),
        learning_rate=rate,
        correction=correction or Correction(),
        batches=generator(0, "batches", 1, client),
        draws=derived_seed(0, "draws", 1, client),
        client=client,
    )


class LearnerContract:
    """Subclass as ``TestMine`` and make the learner, and examples that it can learn from.

    Set ``by_example`` to False when the gradient of a batch is not the mean of the gradients of its
    examples (batch normalisation, dropout), ``classes`` to 0 for regression.
    """

    by_example: ClassVar[bool] = True
    classes: ClassVar[int] = 3
    tolerance: ClassVar[float] = 1e-5

    def learner(self) -> Learner:
        """A new learner."""
        raise NotImplementedError

    def examples(self, count: int, seed: int = 0) -> Examples:
        """Examples whose labels can be learnt from their features."""
        raise NotImplementedError

    def _trained(
        self, learner: Learner, data: Examples, job: TrainingJob
    ) -> tuple[Vector, LocalResult]:
        start = learner.initial(0)
        return start, learner.train(start, data, job)

    def _moving(self, learner: Learner) -> np.ndarray:
        """Which averaged coordinates a gradient moves."""
        kinds = [np.full(p.size, p.trained) for p in learner.layout.parameters]
        return np.concatenate(kinds)[: learner.layout.averaged]

    def test_initial_vector_is_a_pure_function_of_the_seed(self) -> None:
        learner = self.learner()
        first = learner.initial(3)
        assert first.dtype == np.float32
        assert first.shape == (learner.layout.size,)
        np.testing.assert_array_equal(first, learner.initial(3))
        np.testing.assert_array_equal(first, self.learner().initial(3))
        assert not np.array_equal(first, learner.initial(4))

    def test_inputs_are_left_alone(self) -> None:
        learner, data = self.learner(), self.examples(20)
        start = learner.initial(0)
        before = start.copy(), data.x.copy(), data.y.copy()
        for array in (start, data.x, data.y):
            array.setflags(write=False)  # broadcast vectors and shared data cannot be written
        result = learner.train(start, data, training_job())
        for array, kept in zip((start, data.x, data.y), before, strict=True):
            np.testing.assert_array_equal(array, kept)
        assert not np.shares_memory(result.end, start)
        again = learner.train(start, data, training_job(client="b"))
        assert not np.shares_memory(result.end, again.end)

    @pytest.mark.parametrize(
        ("training", "steps", "seen"),
        [
            (LocalTraining(batch_size=8), 3, 20),
            (LocalTraining(batch_size=8, epochs=2), 6, 40),
            (LocalTraining(batch_size=8, steps=4), 4, 28),
            (LocalTraining(batch_size=0), 1, 20),
            (LocalTraining(batch_size=64, shuffle=False), 1, 20),
        ],
    )
    def test_work_is_counted(self, training: LocalTraining, steps: int, seen: int) -> None:
        job = training_job(training)
        _, result = self._trained(self.learner(), self.examples(20), job)
        assert (result.steps, result.examples_seen) == (steps, seen)
        assert result.step_size_sum == pytest.approx(steps * 0.05)
        assert np.isfinite(result.loss_sum)

    @pytest.mark.parametrize(
        ("fraction", "steps"), [(1.0, 6), (0.99, 5), (0.5, 3), (0.34, 2), (1e-6, 1)]
    )
    def test_a_fraction_of_the_work_is_its_first_steps(self, fraction: float, steps: int) -> None:
        whole = LocalTraining(batch_size=8, epochs=2)  # two passes of three batches
        first = LocalTraining(batch_size=8, steps=steps)
        learner, data = self.learner(), self.examples(20)
        job = replace(training_job(whole), fraction=fraction)
        _, part = self._trained(learner, data, job)
        _, same = self._trained(learner, data, training_job(first))
        assert (part.steps, part.examples_seen) == (steps, same.examples_seen)
        assert part.step_size_sum == pytest.approx(steps * 0.05)
        np.testing.assert_array_equal(part.end, same.end)

    def test_results_do_not_depend_on_what_was_trained_before(self) -> None:
        # Different sizes, so that every client meets buffers that another one filled.
        sizes = {"a": 20, "b": 7, "c": 33, "d": 1}
        data = {name: self.examples(n, seed) for seed, (name, n) in enumerate(sizes.items())}
        ends: list[dict[str, Vector]] = []
        for order in ("abcd", "dcba", "bdac"):
            learner = self.learner()
            start = learner.initial(0)
            ends.append(
                {n: learner.train(start, data[n], training_job(client=n)).end for n in order}
            )
            learner.predict(start, data["a"].x)
            ends[-1]["again"] = learner.train(start, data["a"], training_job()).end
            np.testing.assert_array_equal(ends[-1]["again"], ends[-1]["a"])
        for other in ends[1:]:
            for name in data:
                np.testing.assert_array_equal(other[name], ends[0][name])

    def test_batches_come_from_the_jobs_generator(self) -> None:
        training = LocalTraining(batch_size=8, epochs=2)
        job, same = training_job(training), training_job(training)
        self._trained(self.learner(), self.examples(20), job)
        list(batch_orders(20, same))
        assert job.batches is not None
        assert same.batches is not None
        assert job.batches.integers(1 << 30) == same.batches.integers(1 << 30)

    def test_loss_falls(self) -> None:
        learner, data = self.learner(), self.examples(40)
        training = LocalTraining(batch_size=8, epochs=15)
        start, result = self._trained(learner, data, training_job(training))
        once = LocalTraining(batch_size=8)
        before = learner.train(start, data, training_job(once)).loss_sum
        after = learner.train(result.end, data, training_job(once)).loss_sum
        assert after < before

    def test_step_of_a_batch_is_the_mean_of_the_steps_of_its_examples(self) -> None:
        if not self.by_example:
            pytest.skip("examples of a batch are mixed")
        learner, data = self.learner(), self.examples(5)
        full = LocalTraining(batch_size=0, shuffle=False)
        start, together = self._trained(learner, data, training_job(full))
        single = [
            learner.train(start, Examples(data.x[i : i + 1], data.y[i : i + 1]), training_job(full))
            for i in range(5)
        ]
        mean = np.mean([one.end.astype(np.float64) - start for one in single], axis=0)
        np.testing.assert_allclose(together.end - start, mean, atol=self.tolerance)
        losses = sum(one.loss_sum for one in single)
        assert together.loss_sum == pytest.approx(losses, rel=max(1e-4, 10 * self.tolerance))

    def test_correction_pulls_and_drifts(self) -> None:
        learner, data = self.learner(), self.examples(12)
        size, rate = learner.layout.averaged, 0.05
        draw = np.random.default_rng(1)
        anchor, drift = (draw.standard_normal(size).astype(np.float32) for _ in range(2))
        one = LocalTraining(steps=1, batch_size=8, shuffle=False)
        start, plain = self._trained(learner, data, training_job(one))
        job = replace(training_job(one), correction=Correction(0.5, anchor, drift))
        moved = learner.train(start, data, job).end
        expected = -rate * (0.5 * (start[:size] - anchor) + drift) * self._moving(learner)
        np.testing.assert_allclose(moved[:size] - plain.end[:size], expected, atol=1e-5)
        np.testing.assert_array_equal(moved[size:], plain.end[size:])

    def test_frozen_parameters_stay(self) -> None:
        learner = self.learner()
        start, result = self._trained(learner, self.examples(20), training_job())
        views, after = learner.layout.views(start), learner.layout.views(result.end)
        for parameter in learner.layout.parameters:
            if parameter.policy is Policy.FREEZE:
                np.testing.assert_array_equal(after[parameter.name], views[parameter.name])

    def test_prediction_is_by_row_and_in_evaluation_mode(self) -> None:
        learner, data = self.learner(), self.examples(9)
        start = learner.initial(0)
        outputs = learner.predict(start, data.x)
        assert outputs.dtype == np.float32
        assert outputs.ndim == 2
        assert len(outputs) == 9
        learner.train(start, data, training_job())
        np.testing.assert_array_equal(outputs, learner.predict(start, data.x))
        rows = np.concatenate([learner.predict(start, data.x[i : i + 1]) for i in range(9)])
        np.testing.assert_allclose(rows, outputs, atol=1e-5, rtol=1e-4)

    def test_a_client_without_examples_is_refused(self) -> None:
        learner, data = self.learner(), self.examples(1)
        with pytest.raises(AnabranchError, match="AB-306"):
            learner.train(
                learner.initial(0), Examples(data.x[:0], data.y[:0]), training_job(client="empty")
            )

    def test_labels_out_of_range_are_refused(self) -> None:
        if not self.classes:
            pytest.skip("regression")
        learner, data = self.learner(), self.examples(4)
        for wrong in (self.classes, -1):
            labels = data.y.copy()
            labels[2] = wrong
            with pytest.raises(AnabranchError, match="AB-302"):
                learner.train(learner.initial(0), Examples(data.x, labels), training_job())
