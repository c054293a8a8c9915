"""The benchmark of growing shares: which answers count as going back."""

from benchmarks.trial_stages import Asked, went_back


def test_an_answer_of_live_that_begins_after_one_of_the_candidate_goes_back() -> None:
    live, candidate = 1, 2
    before, overlapping = Asked(0, 1, live), Asked(2, 5, live)  # sent before the candidate's answer had come
    first, back, again = Asked(1, 3, candidate), Asked(4, 5, live), Asked(6, 7, candidate)
    assert went_back([before, overlapping, first, again], candidate) == 0
    assert went_back([before, first, back, again], candidate) == 1
    assert went_back([before, overlapping], candidate) == 0
