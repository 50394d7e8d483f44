# %% [markdown] lang="zh"
# # Face recognition：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Face recognition: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.face_recognition import face_recognition_example

# %%
face_recognition_example(torch.arange(5.0))
