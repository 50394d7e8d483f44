# %% [markdown] lang="zh"
# # Spatial pyramid pooling：动手试
#
# 说明读者将在这里做什么。

# %% [markdown] lang="en"
# # Spatial pyramid pooling: try it
#
# Say what the reader will do here.

# %%
import torch

from snippets.spatial_pyramid_pooling import spatial_pyramid_pooling_example

# %%
spatial_pyramid_pooling_example(torch.arange(5.0))
