"""THE RESNET FACTORY: five networks, their starts, and a trained one put to work."""
