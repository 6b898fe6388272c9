"""The operators on CUDA tensors: the compiled kernels, their launches, and reads around torch's.

Calls are asynchronous, as torch's are: they allocate from torch's pool, run on torch's current
stream and never wait for the GPU, so that a CUDA graph may capture them; its replays repeat the
draws. Taps of an update come from the host, and such a call is not to be captured. Nothing here is
kept between calls but the compiled module: updates that share launches belong to a
:class:`.batch.Batch`, what the GPU will say of an array's updates to its
:class:`.outcomes.Outcomes`.

Bits are those of the CPU backend, except the ideal device, a matrix product of torch's, and
``moments``, whose sums come from tensor cores: their factors are rounded to 11 bits, and their
order is the GPU's.
"""
