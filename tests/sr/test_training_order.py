"""The order of a final training's images: with the seed, the same again, and going on where it was."""

from basicsr.data.data_sampler import EnlargedSampler

from quantnas_ext.sr.training.training_order import SeededSampler


def order(seed: int, epoch: int = 0, rank: int = 0, processes: int = 1, done: int = 0) -> list[int]:
    sampler = SeededSampler(range(10), processes, rank, 4, seed=seed, batch_size=6, done=done)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_another_seed_or_epoch_sees_other_images_first_and_the_same_one_the_same() -> None:
    assert order(0) == order(0) and order(0, epoch=3) == order(0, epoch=3)
    firsts = [tuple(order(seed, epoch)[:8]) for seed in range(4) for epoch in range(4)]
    assert len(set(firsts)) == len(firsts)
    theirs = EnlargedSampler(range(10), 1, 0, 4)
    assert sorted(order(1)) == sorted(theirs) and len(order(1)) == len(theirs)


def test_processes_share_an_epoch_out_without_a_rest() -> None:
    parts = [order(5, rank=rank, processes=2) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == sorted([*range(10)] * 4) and len(parts[0]) == len(parts[1]) == 20


def test_a_training_that_goes_on_gets_what_its_epoch_has_left() -> None:
    # An epoch of 40 has six full batches of six: iteration 8 is the second one of epoch 1.
    assert order(3, epoch=1, done=8) == order(3, epoch=1)[2 * 6 :]
    assert order(3, epoch=2, done=8) == order(3, epoch=2)
    assert len(order(3, epoch=0, done=6)) < 6
