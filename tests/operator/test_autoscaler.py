"""The in-flight algorithm in simulation: load curves in, replica curves out, one decision every ten seconds."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from cortex_api.deployment import RealtimeAutoscaling
from cortex_operator.autoscaling.autoscaler import Rules, State, decide

RULES = Rules.of(RealtimeAutoscaling.model_validate({"targetInFlight": 2, "maxReplicas": 20}))
LOOK = 10.0


def simulate(
    rules: Rules, load: Callable[[float], float], seconds: float, start: int = 1, scale_in: bool = True
) -> list[int]:
    """Return the replicas after each decision."""
    state, now, replicas, curve = State(since=0.0), 0.0, start, []
    while now < seconds:
        state, decision = decide(rules, state, now, replicas, load(now), scale_in)
        replicas = decision.replicas
        curve.append(replicas)
        now += LOOK
    return curve


def test_a_steady_load_converges_to_load_over_target() -> None:
    curve = simulate(RULES, lambda _: 11.0, 900)
    assert curve[-1] == 6
    assert curve == sorted(curve)


def test_no_step_exceeds_the_factors() -> None:
    curve = simulate(RULES, lambda t: 40.0 if t < 600 else 0.0, 5400)
    for before, after in zip([1, *curve], curve, strict=False):
        assert after <= max(before + 1, -(-before * 3 // 2))
        assert after >= min(before - 1, -(-before * 3 // 4))
    assert max(curve) == 20
    assert curve[-1] == 1


def test_scaling_out_needs_no_history() -> None:
    assert simulate(RULES, lambda _: 20.0, 10) == [2]


def test_a_spike_shorter_than_the_stabilization_period_changes_nothing() -> None:
    curve = simulate(replace(RULES, window=10.0), lambda t: 30.0 if 300 <= t < 350 else 1.0, 900)
    assert set(curve) == {1}


def test_scaling_in_waits_for_the_whole_period_after_a_start_and_after_a_peak() -> None:
    fresh = simulate(RULES, lambda _: 0.0, 310, start=4)
    assert fresh[:30] == [4] * 30
    assert fresh[30] == 3
    after_peak = simulate(RULES, lambda t: 16.0 if t < 600 else 0.0, 1200, start=8)
    assert after_peak[int((600 + 270) / LOOK)] == 8
    assert after_peak[-1] < 8


def test_small_changes_are_tolerated_both_ways() -> None:
    tolerant = replace(RULES, downscale_tolerance=0.3, upscale_tolerance=0.3)
    assert set(simulate(tolerant, lambda t: 10.0 if t < 600 else 12.0, 1500, start=5)) == {5}
    assert set(simulate(tolerant, lambda t: 10.0 if t < 600 else 8.0, 1500, start=5)) == {5}


def test_bounds_hold_after_manual_scaling() -> None:
    assert simulate(replace(RULES, highest=3), lambda _: 100.0, 600)[-1] == 3
    assert simulate(replace(RULES, highest=3), lambda _: 100.0, 10, start=9) == [3]
    assert simulate(replace(RULES, lowest=2), lambda _: 0.0, 600) == [2] * 60


def test_no_scale_in_while_a_pod_is_unschedulable() -> None:
    assert set(simulate(RULES, lambda _: 0.0, 1500, start=5, scale_in=False)) == {5}
    state = State(since=-1000.0)
    assert decide(RULES, state, 0.0, 5, 0.0, scale_in=False)[1].hold_reason == "a pod cannot be scheduled"


def test_an_empty_queue_scales_to_zero_and_the_first_job_starts_a_worker() -> None:
    rules = replace(RULES, lowest=0, target=1.0)
    curve = simulate(rules, lambda t: 0.0 if t < 1000 else 5.0, 1600, start=2)
    assert curve[int(990 / LOOK)] == 0
    assert curve[int(1000 / LOOK)] == 1
    assert curve[-1] == 5


def test_noise_causes_no_flapping() -> None:
    curve = simulate(RULES, lambda t: 10.0 + (3.0 if int(t / LOOK) % 2 else -3.0), 3600)
    settled = curve[60:]
    assert max(settled) - min(settled) <= 1
    assert sum(a != b for a, b in pairwise(settled)) <= 1


def test_the_rules_are_those_of_the_spec() -> None:
    spec = RealtimeAutoscaling.model_validate(
        {
            "targetInFlight": 3,
            "minReplicas": 2,
            "maxReplicas": 7,
            "window": "30s",
            "downscaleStabilizationPeriod": "2m",
            "upscaleStabilizationPeriod": "20s",
            "maxDownscaleFactor": 0.5,
            "maxUpscaleFactor": 3,
            "downscaleTolerance": 0.1,
            "upscaleTolerance": 0.2,
        }
    )
    assert Rules.of(spec) == Rules(
        target=3,
        lowest=2,
        highest=7,
        window=30,
        downscale_period=120,
        upscale_period=20,
        downscale_factor=0.5,
        upscale_factor=3,
        downscale_tolerance=0.1,
        upscale_tolerance=0.2,
    )


def one_decision(
    state: State, now: float, current: int, load: float, rules: Rules = RULES
) -> tuple[State, int]:
    after, decision = decide(rules, state, now, current, load)
    return after, decision.replicas


def test_the_average_covers_the_window_only() -> None:
    rules = replace(RULES, window=60.0)
    state = State(since=0.0, loads=((40.0, 100.0), (40.5, 2.0)))
    after, decision = decide(rules, state, 100.0, 1, 4.0)
    assert decision.load == 3.0
    assert after.loads == ((40.5, 2.0), (100.0, 4.0))


def test_recommendations_are_kept_for_the_longest_period_and_used_for_their_own() -> None:
    rules = replace(RULES, downscale_period=100.0, upscale_period=50.0)
    state = State(since=0.0, recommendations=((899.0, 9), (900.0, 5), (950.0, 3), (960.0, 2)))
    after, replicas = one_decision(state, 1000.0, 6, 0.0, rules)
    assert replicas == 5
    assert [time for time, _ in after.recommendations] == [900.0, 950.0, 960.0, 1000.0]
    # Scaling out follows the lowest recommendation of the last 50 s, and never scales in.
    up = State(since=0.0, recommendations=((940.0, 1), (950.0, 3)))
    assert one_decision(up, 1000.0, 2, 100.0, rules)[1] == 3
    assert one_decision(State(since=0.0, recommendations=((950.0, 1),)), 1000.0, 2, 100.0, rules)[1] == 2


def test_scaling_in_begins_when_the_period_since_the_start_is_over() -> None:
    rules = replace(RULES, downscale_period=100.0)
    assert one_decision(State(since=500.0), 599.0, 4, 0.0, rules)[1] == 4
    assert one_decision(State(since=500.0), 600.0, 4, 0.0, rules)[1] == 3


def test_from_zero_the_first_request_starts_one_replica_and_none_starts_without_it() -> None:
    rules = replace(RULES, lowest=0)
    recent = State(since=0.0, recommendations=((990.0, 0),))
    assert one_decision(recent, 1000.0, 0, 0.1, rules)[1] == 1
    assert one_decision(recent, 1000.0, 0, 0.0, rules)[1] == 0
    # An API that was scaled to zero manually returns to the minimum.
    assert one_decision(recent, 1000.0, 0, 0.0, replace(RULES, lowest=2))[1] == 2


def test_one_replica_more_or_less_is_always_possible() -> None:
    """Factors near 1 round to no change for few replicas; a step of one is always allowed."""
    near = replace(RULES, upscale_factor=1.01, downscale_factor=0.99)
    assert one_decision(State(since=-1000.0), 0.0, 2, 100.0, near)[1] == 3
    assert one_decision(State(since=-1000.0), 0.0, 2, 0.0, near)[1] == 1


def test_at_the_edge_of_a_tolerance_the_change_is_made() -> None:
    rules = replace(RULES, target=1.0, downscale_tolerance=0.25, upscale_tolerance=0.25)
    assert one_decision(State(since=-1000.0), 0.0, 4, 5.0, rules)[1] == 5
    assert one_decision(State(since=-1000.0), 0.0, 4, 4.9, rules)[1] == 4
    assert one_decision(State(since=-1000.0), 0.0, 4, 3.0, rules)[1] == 3
    assert one_decision(State(since=-1000.0), 0.0, 4, 3.1, rules)[1] == 4
