"""How weights change beyond ``loss.backward()``: readouts, losses, distillation."""
