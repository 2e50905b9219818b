r"""The words of a described operator, apart from what takes seconds to import."""

#: What a description may say; see :func:`deepinv_lvtino.physics.parse_operator`.
VOCABULARY = """\
  temporal-mean=N        mean of groups of N frames
  temporal-blur=N        uniform blur over N frames
  every=N                one frame in N
  blur=S                 Gaussian blur of standard deviation S pixels
  blur=FILE              blur by a kernel: a picture, or a matrix in a .npy file
  downscale=N[:FILTER]   N times smaller; bicubic, bilinear, gaussian or sinc
  crop=X[:Y]             X columns on the left and right, Y rows above and below cut off
  mask=P                 a share P of the pixels missing, the same in all frames
  mask=FILE              black pixels of a picture or a video missing
  jpeg=Q                 JPEG of quality Q, frame by frame, after the noise
  noise=S                Gaussian noise of standard deviation S, for values in [0, 1]
"""
