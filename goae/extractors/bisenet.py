"""BiSeNet with a ResNet-18 context path, 19 face classes; names are those of the public `79999_iter.pth`:

    cp.resnet.{conv1, bn1, layer1 ... layer4}   layerN.{0, 1}.{conv1, bn1, conv2, bn2, downsample.{0, 1}}
    cp.{arm16, arm32}.{conv.{conv, bn}, conv_atten, bn_atten}
    cp.{conv_head16, conv_head32, conv_avg}.{conv, bn}
    ffm.{convblk.{conv, bn}, conv1, conv2}
    {conv_out, conv_out16, conv_out32}.{conv.{conv, bn}, conv_out}

The heads conv_out16 and conv_out32 served training only; they are kept so that the file fits, and are not run.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 19  # 0 is background


class BiSeNet(nn.Module):
    """(B, 3, H, W), ImageNet normalisation, H and W multiples of 32 -> logits (B, 19, H, W)."""

    def __init__(self, num_classes: int = CLASSES) -> None:
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _Fusion(256, 256)
        self.conv_out = _Output(256, 256, num_classes)
        self.conv_out16 = _Output(128, 64, num_classes)
        self.conv_out32 = _Output(128, 64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        detail, context = self.cp(x)
        out = self.conv_out(self.ffm(detail, context))
        return F.interpolate(out, x.shape[2:], mode="bilinear", align_corners=True)


class _ConvBNReLU(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(shortcut + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class _ResNet18(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(_Block(64, 64, 1), _Block(64, 64, 1))
        self.layer2 = nn.Sequential(_Block(64, 128, 2), _Block(128, 128, 1))
        self.layer3 = nn.Sequential(_Block(128, 256, 2), _Block(256, 256, 1))
        self.layer4 = nn.Sequential(_Block(256, 512, 2), _Block(512, 512, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps at 1/8, 1/16, 1/32."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class _Attention(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = _ConvBNReLU(in_channels, channels, 3)
        self.conv_atten = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(x.mean((2, 3), keepdim=True))))


class _ContextPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resnet = _ResNet18()
        self.arm16, self.arm32 = _Attention(256, 128), _Attention(512, 128)
        self.conv_head32, self.conv_head16 = _ConvBNReLU(128, 128, 3), _ConvBNReLU(128, 128, 3)
        self.conv_avg = _ConvBNReLU(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Detail (B, 128, H/8, W/8) of the backbone, and context of the same size."""
        eighth, sixteenth, last = self.resnet(x)
        deep = self.arm32(last) + self.conv_avg(last.mean((2, 3), keepdim=True))
        deep = self.conv_head32(F.interpolate(deep, sixteenth.shape[2:], mode="nearest"))
        middle = self.arm16(sixteenth) + deep
        return eighth, self.conv_head16(F.interpolate(middle, eighth.shape[2:], mode="nearest"))


class _Fusion(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convblk = _ConvBNReLU(in_channels, channels, 1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([detail, context], 1))
        return x + x * torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean((2, 3), keepdim=True)))))


class _Output(nn.Module):
    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = _ConvBNReLU(in_channels, channels, 3)
        self.conv_out = nn.Conv2d(channels, num_classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_out(self.conv(x))
