"""The shelf of memory that results are made on."""

import gc
import threading

import torch

from rekern.runtime.memory import PATIENCE, SMALLEST, Shelf, rounded

SIZE = 2 * SMALLEST // 4  # numbers of a tensor that comes from the shelf


def test_memory_is_taken_again_when_its_last_tensor_is_gone() -> None:
    shelf = Shelf(most_idle=1 << 30)
    first = shelf.empty([SIZE], torch.float32)
    part, place = first.view(2, -1)[1], first.data_ptr()
    del first
    other = shelf.empty([SIZE], torch.float32)
    assert other.data_ptr() != place and shelf.idle() == 0  # a view still lives
    del part
    assert shelf.empty([SIZE], torch.float32).data_ptr() == place


def test_tensors_are_dense_and_their_own() -> None:
    shelf = Shelf(most_idle=1 << 30)
    a, b = shelf.empty([3, SIZE], torch.float64), shelf.empty([3, SIZE], torch.float64)
    a.fill_(1.0)
    b.fill_(2.0)
    assert a.is_contiguous() and a.shape == (3, SIZE) and a.dtype == torch.float64
    assert (a == 1.0).all() and (b == 2.0).all()


def test_what_waits_goes_back_when_it_is_too_much_or_too_long() -> None:
    shelf = Shelf(most_idle=4 * SIZE)
    held = [shelf.empty([SIZE], torch.float32) for _ in range(2)]
    del held
    assert shelf.idle() == rounded(4 * SIZE)
    for _ in range(PATIENCE + 1):
        shelf.empty([4 * SIZE], torch.float32)  # too large to wait
    assert shelf.idle() == 0
    del_later = shelf.empty([SIZE], torch.float32)
    del del_later
    shelf.release()
    assert shelf.idle() == 0


def test_small_tensors_do_not_come_from_the_shelf() -> None:
    shelf = Shelf(most_idle=1 << 30)
    shelf.empty([4], torch.float32)
    gc.collect()
    assert shelf.idle() == 0


def test_threads_never_share_a_block() -> None:
    shelf = Shelf(most_idle=1 << 30)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            tensor = shelf.empty([SIZE], torch.float32)
            tensor[::1024] = number
            if not (tensor[::1024] == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
