# SPDX-License-Identifier: Apache-2.0
"""What `./run.sh test-aarch64` runs, and why it leaves the rest out.

Under emulation a network takes a minute for an image, and no other program can be started.
"""

PARTS = {
    "images": ["test/images", "test/properties/test_images.py", "test/properties/test_targets.py"],
    "tracking": [
        "test/tracking",
        "test/properties/test_tracking.py",
        "test/properties/test_frame_clock.py",
    ],
    "detection": [
        "test/detection",
        "test/properties/test_views.py",
        "test/properties/test_nms.py",
        "test/properties/test_decoding.py",
    ],
    "recognition": ["test/recognition", "test/properties/test_alignment.py"],
    "values and files": [
        "test/test_arrays.py",
        "test/test_faces.py",
        "test/test_files.py",
        "test/test_config.py",
    ],
    "bags": ["test/bags"],
    "networks": [
        "test/inference/test_blob.py",
        "test/inference/test_onnx_file.py",
        "test/inference/test_onnx_parts.py",
        "test/inference/test_onnx_runtime.py",
        "test/inference/test_protobuf.py",
    ],
    "gallery": [
        "test/gallery/test_choice.py",
        "test/gallery/test_exchange.py",
        "test/gallery/test_gallery.py",
        "test/gallery/test_identifier.py",
        "test/properties/test_identity.py",
        "test/properties/test_search.py",
    ],
    "guard pages": ["test/test_guard_pages.py"],
    "one picture": ["test/test_pipeline.py::test_without_recognizer"],
}
"""Tests by subject, as arguments of pytest."""

ROS = "needs ROS 2, which the Python registry has for x86_64 only"
NETWORKS = "runs networks many times: a minute for each image under emulation"
PROCESSES = "starts programs, which emulation of one process cannot"
SLOW = "takes minutes under emulation"
SOURCES = "tests sources or documents, which are the same on every machine"
GPU = "simulates the GPU with a library built on x86_64"

LEFT_OUT = {
    "test/aarch64": SOURCES,
    "test/bags/test_damaged_bags.py": PROCESSES,
    "test/bags/test_replay.py": NETWORKS,
    "test/cli": NETWORKS,
    "test/detection/test_geometry.py::test_a_real_network_sees_no_drift_across_the_image": NETWORKS,
    "test/detection/test_kernels.py": GPU,
    "test/detection/test_on_device.py": GPU,
    "test/detection/test_parts.py::test_a_face_that_a_part_cuts_is_not_reported": NETWORKS,
    "test/detection/test_parts.py::test_faces_of_parts_are_those_of_the_whole_image": NETWORKS,
    "test/detection/test_views.py::test_a_crowd_of_small_faces": NETWORKS,
    "test/detection/test_views.py::test_large_faces": NETWORKS,
    "test/detection/test_views.py::test_long_images": NETWORKS,
    "test/detection/test_views.py::test_second_look_leaves_other_faces_alone": NETWORKS,
    "test/detection/test_views.py::test_several_images_in_batches": NETWORKS,
    "test/detection/test_views.py::test_tiles_merge_without_duplicates": NETWORKS,
    "test/engines": NETWORKS,
    "test/enrollment": NETWORKS,
    "test/evaluation": NETWORKS,
    "test/gallery/test_clips.py": NETWORKS,
    "test/gallery/test_forgotten_bytes.py": PROCESSES,
    "test/gallery/test_kills.py": PROCESSES,
    "test/gallery/test_opening.py": PROCESSES,
    "test/gallery/test_postgres.py": PROCESSES,
    "test/gallery/test_search.py": PROCESSES,
    "test/gallery/test_sqlite.py": PROCESSES,
    "test/gpu": GPU,
    "test/images/test_encodings.py::test_a_reduced_jpeg_has_the_same_faces": NETWORKS,
    "test/images/test_rotation.py::test_a_reduced_jpeg_that_is_turned": NETWORKS,
    "test/images/test_rotation.py::test_faces_are_cut_upright": NETWORKS,
    "test/images/test_rotation.py::test_people_are_found": NETWORKS,
    "test/images/test_serialized.py": ROS,
    "test/inference/test_cores.py": PROCESSES,
    "test/inference/test_cuda.py": GPU,
    "test/inference/test_cuda_api.py": GPU,
    "test/inference/test_engine_file.py": GPU,
    "test/inference/test_external_data.py": PROCESSES,
    "test/inference/test_load.py": PROCESSES,
    "test/inference/test_onnx_runtime_settings.py": PROCESSES,
    "test/inference/test_openvino.py": NETWORKS,
    "test/inference/test_tensorrt.py": GPU,
    "test/inference/test_tensorrt_library.py": GPU,
    "test/inference/test_tensorrt_names.py": GPU,
    "test/launch": ROS,
    "test/messages": ROS,
    "test/models": PROCESSES,
    "test/node": ROS,
    "test/properties/test_buffers.py": NETWORKS,
    "test/properties/test_messages.py": ROS,
    "test/recognition/test_quality.py::test_real_faces": NETWORKS,
    "test/recognition/test_quality.py::test_the_faces_left_out": NETWORKS,
    "test/recognition/test_super_resolution.py": NETWORKS,
    "test/test_against_retinaface.py": NETWORKS,
    "test/test_build.py": SOURCES,
    "test/test_docs.py": SOURCES,
    "test/test_fuzz.py": PROCESSES,
    "test/test_gpu_bench.py": GPU,
    "test/test_house_rules.py": SOURCES,
    "test/test_peers.py": NETWORKS,
    "test/test_pipeline.py": NETWORKS,
    "test/test_public.py": PROCESSES,
    "test/test_scenes.py": NETWORKS,
    "test/test_security.py": ROS,
    "test/test_soak.py": ROS,
    "test/test_versions.py": SOURCES,
    "test/tracking/test_frame_clock.py::test_a_still_face_keeps_its_id": SLOW,
    "test/tracking/test_frame_clock.py::test_people_who_passed_are_let_go": SLOW,
    "test/tracking/test_tracker.py::test_people_who_pass_each_other": NETWORKS,
}
"""Files, folders and beginnings of names of tests that are not run, with the reason."""
