"""What is drawn from a seed is the same whoever else draws at that time."""

import threading

import torch

from nbtune.models.chance import drawn_from


def test_two_threads_that_draw_at_once_each_get_what_their_seed_gives() -> None:
    torch.manual_seed(5)
    outside = torch.get_rng_state()
    wanted = {}
    for seed in (1, 2):
        with drawn_from(seed):
            wanted[seed] = torch.cat([torch.rand(20) for _ in range(3)])
    found: dict[int, list[torch.Tensor]] = {1: [], 2: []}
    both = threading.Barrier(2)

    def draw(seed: int) -> None:
        both.wait()
        for _ in range(300):
            with drawn_from(seed):
                found[seed].append(torch.cat([torch.rand(20) for _ in range(3)]))

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(drawn, wanted[seed]) for seed in (1, 2) for drawn in found[seed])
    assert torch.equal(torch.get_rng_state(), outside)
