"""The denoising net of the Keras tutorial on MNIST: python keras_denoiser.py GIVEN.npz OUT.npz SECONDS

Convolutions of 32 channels, halved twice and doubled twice, binary cross-entropy, Adam, batches of 128
(https://keras.io/examples/vision/autoencoder/). GIVEN has ``clean``, ``noisy`` and ``test``, from 0 to 1; OUT what it makes of
``test``, and the steps that there was time for.
"""

import contextlib
import os
import sys
import time

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
from keras import layers

given, out, seconds = np.load(sys.argv[1]), sys.argv[2], float(sys.argv[3])
keras.utils.set_random_seed(0)
image = layers.Input(shape=(28, 28, 1))
x = layers.Conv2D(32, (3, 3), activation="relu", padding="same")(image)
x = layers.MaxPooling2D((2, 2), padding="same")(x)
x = layers.Conv2D(32, (3, 3), activation="relu", padding="same")(x)
x = layers.MaxPooling2D((2, 2), padding="same")(x)
x = layers.Conv2DTranspose(32, (3, 3), strides=2, activation="relu", padding="same")(x)
x = layers.Conv2DTranspose(32, (3, 3), strides=2, activation="relu", padding="same")(x)
x = layers.Conv2D(1, (3, 3), activation="sigmoid", padding="same")(x)
model = keras.Model(image, x)
model.compile(optimizer="adam", loss="binary_crossentropy")
began = time.perf_counter()


class Clock(keras.callbacks.Callback):
    """Ends training when the time is up."""

    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if time.perf_counter() - began > seconds:
            self.model.stop_training = True
            raise StopIteration


clock = Clock()
with contextlib.suppress(StopIteration):
    model.fit(given["noisy"], given["clean"], epochs=100, batch_size=128, shuffle=True, verbose=0, callbacks=[clock])
fitted = time.perf_counter() - began
restored = model.predict(given["test"], batch_size=128, verbose=0)[..., 0]
np.savez(out, restored=restored, seconds=fitted, steps=clock.steps)
