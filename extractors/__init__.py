"""From video files to features. Imports neither `models` nor `pipeline`.

Axes: N clips in a batch, C channels (3 for RGB, 2 for flow: x, y), T frames, H and W pixels,
K crops of a frame (1, 5 or 10), D width of a feature vector. Frames are (T, H, W, C) as decoded and
(T, C, H, W) from the resizing on; clips are (N, C, T, H, W), features (n_snippets, K, D).

Nothing is imported here: the processes that decode import `extractors.decoding` and never torch.
"""
