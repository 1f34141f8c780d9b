"""The factory of networks: the published table of five ResNets, built from two blocks.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition" (arXiv 1512.03385),
table 1. The stride of a bottleneck stands on its 3×3 convolution, and names, shapes and
initialisation are torchvision's, so that ImageNet weights load as they are.
"""

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps H×W (divided by the stride); the norm after it has the bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Option B of the paper: x as it is, or projected by 1×1 where its shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut: [N, inputs, H, W] -> [N, width, H/s, W/s]."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width, stride)

    def steps(self) -> list[tuple[nn.Conv2d, nn.Module]]:
        """Its convolutions, each with the norm behind it."""
        return [(self.conv1, self.bn1), (self.conv2, self.bn2)]

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1×1 down, 3×3, 1×1 up beside a shortcut: [N, inputs, H, W] -> [N, 4·width, H/s, W/s]."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, width * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = shortcut(inputs, width * self.expansion, stride)

    def steps(self) -> list[tuple[nn.Conv2d, nn.Module]]:
        """As of `BasicBlock`."""
        return [(self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)]

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + self.downsample(x), inplace=True)


Block = type[BasicBlock] | type[Bottleneck]

# Table 1: the block, and how many of them at 1/4, 1/8, 1/16 and 1/32 of the input's side.
ARCHITECTURES: dict[str, tuple[Block, tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
    "resnet152": (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """[N, 3, H, W] float32, normalised by ImageNet's mean and deviation -> logits [N, classes]."""

    def __init__(self, block: Block, layers: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        self.conv1 = convolution(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        e = block.expansion
        self.layer1 = stage(block, layers[0], 64, 64, stride=1)
        self.layer2 = stage(block, layers[1], 64 * e, 128, stride=2)
        self.layer3 = stage(block, layers[2], 128 * e, 256, stride=2)
        self.layer4 = stage(block, layers[3], 256 * e, 512, stride=2)
        self.fc = nn.Linear(512 * e, num_classes)
        for module in self.modules():  # norms start as torch starts them: weight 1, bias 0
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        """The last feature map: [N, 3, H, W] -> [N, C, ⌈H/32⌉, ⌈W/32⌉], C 512 or 2048, >= 0."""
        return self.layer4(self.before_last(x))

    def before_last(self, x: Tensor) -> Tensor:
        """The map before the last stage: [N, 3, H, W] -> [N, C, ⌈H/16⌉, ⌈W/16⌉], C 256 or 1024."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # 1/2
        x = self.maxpool(x)  # 1/4
        return self.layer3(self.layer2(self.layer1(x)))

    def classify(self, features: Tensor) -> Tensor:
        """Averaged over the cells, then the head: [N, C, h, w] -> logits [N, classes]."""
        return self.fc(self.pool(features))

    def pool(self, features: Tensor) -> Tensor:
        """Averaged over the cells: [N, C, h, w] -> [N, C]."""
        return features.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x))


def stage(block: Block, blocks: int, inputs: int, width: int, stride: int) -> nn.Sequential:
    """Blocks at one resolution; the first of them takes the step down to it."""
    first = block(inputs, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width) for _ in range(1, blocks)))


def build_resnet(
    arch: str, num_classes: int = NUM_GRADES, pretrained: bool = False, observer: Observer = NOTHING
) -> ResNet:
    """One of `ARCHITECTURES`, freshly initialised from torch's random state, in training mode.

    It takes [N, 3, H, W] float32, normalised by ImageNet's mean and deviation, of any size (32
    pixels are one cell of its last feature map), and gives logits [N, num_classes].
    pretrained: all but the head starts from ImageNet (torchvision's IMAGENET1K_V1).
    observer: told of a download. Raises UsageError on an unknown name, DrError where ImageNet
    weights cannot be had.

    >>> network = build_resnet("resnet18").eval()
    >>> network(torch.zeros(2, 3, 96, 96)).shape
    torch.Size([2, 5])
    """
    if arch not in ARCHITECTURES:
        raise UsageError(f"no architecture {arch!r}: choose one of {', '.join(ARCHITECTURES)}")
    network = ResNet(*ARCHITECTURES[arch], num_classes)
    if pretrained:
        from dr_cli.network.weights import load_pretrained  # on use: it knows the table above

        load_pretrained(network, arch, observer)
    return network


def name_architecture(network: ResNet) -> str:
    """Which of `ARCHITECTURES` it is, by its blocks; "a ResNet" for any other."""
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    built = type(stages[0][0]), tuple(map(len, stages))
    return next((name for name, table in ARCHITECTURES.items() if table == built), "a ResNet")


def count_parameters(arch: str, num_classes: int = NUM_GRADES) -> int:
    """Trainable numbers in the network."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_resnet(arch, num_classes).parameters())


def multiply_adds(arch: str, size: int, num_classes: int = NUM_GRADES) -> int:
    """Multiply-adds of one forward pass over one size×size picture, as the paper counts them:
    convolutions and the head; norms, additions and pooling, about 1%, are left out.
    """
    with torch.device("meta"):  # shapes without numbers
        network = build_resnet(arch, num_classes)
    total, side = network.fc.weight.numel(), size
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d) and "downsample" not in name:
            stride = module.stride[0] if isinstance(module.stride, tuple) else module.stride
            side = math.ceil(side / stride)  # a projection stands after the step it shares
        if isinstance(module, nn.Conv2d):
            total += module.weight.numel() * side**2
    return total


def inference_copy(network: ResNet) -> ResNet:
    """A copy that answers the same, faster: eval mode, channels_last, norms folded away.

    Each norm goes into the convolution just before it (Jacob et al., arXiv 1712.05877, section
    3.2). The copy cannot be trained, and its state dict is its own. Logits differ by less than
    1e-5 of the largest.
    """
    # Measured on two AVX2 cores, ResNet18, 224 px, batch 8, fp32, best of 40: 27 img/s as it is,
    # 32 with channels_last, 27 folded, 38 with both; in bf16, which those cores lack, 7.
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(frozen.modules()):
        for (name, module), (next_name, next_module) in pairwise(list(parent.named_children())):
            if isinstance(module, nn.Conv2d) and isinstance(next_module, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(module, next_module))
                setattr(parent, next_name, nn.Identity())
    return frozen.to(memory_format=torch.channels_last)
