import threading

import pytest

from cxrlib.parallel import ahead, share


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


def test_the_next_block_is_read_while_this_one_is_worked_on():
    begun = [threading.Event() for _ in range(3)]
    for number in ahead(lambda number: begun[number].set() or number, range(3)):
        assert number == 2 or begun[number + 1].wait(300)
    assert list(ahead(str, [])) == [] and list(ahead(str, [1])) == ["1"]


def test_what_goes_wrong_while_reading_ahead_comes_in_its_turn():
    read = ahead(lambda number: 1 / number, (4, 0, 1))
    assert next(read) == 0.25
    with pytest.raises(ZeroDivisionError):
        next(read)
