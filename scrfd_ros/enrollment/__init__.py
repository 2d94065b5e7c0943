# SPDX-License-Identifier: Apache-2.0
"""From images and bags to people in a gallery.

images: the looks at a person in images. bags: at people in a bag. people: enroll a person, or a
folder of people. terms: note of consent, expiry. Which looks become templates, and when that is
refused, is in gallery.choice.
"""
