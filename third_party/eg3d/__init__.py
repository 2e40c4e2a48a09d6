"""An independent EG3D: tri-plane 3D GAN (Chan et al., CVPR 2022)."""
