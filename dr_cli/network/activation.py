"""Where the network looked: class activation maps, without a backward pass.

A ResNet ends in global average pooling and one linear layer. For such a network Grad-CAM's
weights, the pooled gradients of a logit, are the layer's own weights up to one factor
(Selvaraju et al. 2017, arXiv 1610.02391, section 3.1), so that the class activation map of Zhou
et al. (arXiv 1512.04150) is Grad-CAM.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dr_cli.network.resnet import ResNet


def class_activation(network: ResNet, batch: Tensor, grade: Tensor | int) -> NDArray[np.float32]:
    """Evidence for `grade` in each cell: [N, 3, H, W] normalised -> [N, h, w] in [0, 1].

    grade: one for all, or one an image, [N] int64. See `activation`.
    """
    with torch.inference_mode():
        return activation(network.features(batch), network.fc.weight, grade)


def activation(features: Tensor, weight: Tensor, grade: Tensor | int) -> NDArray[np.float32]:
    """The map from what a forward pass has anyway: [N, C, h, w] float -> [N, h, w] in [0, 1].

    weight: the head's, [5, C]. Evidence against the grade is 0, the strongest for it is 1; a
    map without any evidence for it is 0 everywhere.
    """
    chosen = torch.as_tensor(grade, device=weight.device).expand(len(features))
    with torch.inference_mode():
        evidence = torch.einsum("nchw,nc->nhw", features.float(), weight[chosen].float()).relu()
        peak = evidence.amax((1, 2), keepdim=True)
        return (evidence / peak.clamp_min(torch.finfo(peak.dtype).tiny)).cpu().numpy()
