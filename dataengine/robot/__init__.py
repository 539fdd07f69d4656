"""Robots from URDF: kinematics, keypoints, visual meshes, collision checks, motions. See the modules."""
