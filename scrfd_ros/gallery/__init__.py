# SPDX-License-Identifier: Apache-2.0
"""Who people are: a gallery of people and their faces, and what a robot may conclude from it.

people has the values. gallery.Gallery is what others use: enroll, search, correct, forget. It has
all templates in memory (search; signs, of very many) and keeps them in a store (sqlite, postgres;
sql has what both share). opening opens a gallery. decision is the rule by which looks at a face
become a name; identifier applies it to the faces of cameras, and gives anonymous ids to others
(strangers). memory keeps looks for a while. choice is the rule by which looks become templates, or
an enrollment is refused. exchange has exports and imports. wiping overwrites what was in freed
memory.
"""
