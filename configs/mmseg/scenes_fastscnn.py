# The target model of `mad demo`: a narrow Fast-SCNN for the (192, 256) scenes of training/scenes.py.
# The auxiliary head stays, because fine-tuning uses it. Weights: weights/scenes_fastscnn.safetensors.
norm_cfg = dict(type="BN", requires_grad=True)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(192, 256),
    ),
    backbone=dict(
        type="FastSCNN",
        downsample_dw_channels=(16, 32),
        global_in_channels=48,
        global_block_channels=(48, 64, 96),
        global_block_strides=(2, 2, 1),
        global_out_channels=96,
        higher_in_channels=48,
        lower_in_channels=96,
        fusion_out_channels=96,
        out_indices=(0, 1, 2),
        norm_cfg=norm_cfg,
        align_corners=False,
    ),
    decode_head=dict(
        type="DepthwiseSeparableFCNHead",
        in_channels=96,
        channels=96,
        concat_input=False,
        num_classes=8,
        in_index=-1,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=[
        dict(
            type="FCNHead",
            in_channels=96,
            channels=24,
            num_convs=1,
            num_classes=8,
            in_index=-2,
            norm_cfg=norm_cfg,
            concat_input=False,
            align_corners=False,
            loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
        ),
    ],
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(256, 192), ratio_range=(0.9, 1.25), keep_ratio=True),
    dict(type="RandomCrop", crop_size=(192, 256), cat_max_ratio=0.98),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
