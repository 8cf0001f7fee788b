import pytest

from cxrlib.compute.threads import share


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_shared_work_is_done_once_each(threads):
    done = []
    share(done.append, 23, threads)
    assert sorted(done) == list(range(23))
    share(done.append, 0, threads)
    assert len(done) == 23


@pytest.mark.parametrize("threads", [1, 3])
def test_shared_work_passes_on_what_goes_wrong(threads):
    with pytest.raises(ZeroDivisionError):
        share(lambda number: 1 / (number - 4), 9, threads)
