"""The references of the methods texts: key to the full reference, with its DOI if it has one."""

REFERENCES = {
    "paper": (
        "Ferreira A, Magalhães R, Mériaux S, Alves V (2022). Generation of synthetic rat brain MRI scans "
        "with a 3D enhanced alpha generative adversarial network. Applied Sciences 12(10):4844. "
        "doi:10.3390/app12104844"
    ),
    "kwon": (
        "Kwon G, Han C, Kim D-S (2019). Generation of 3D brain MRI using auto-encoding generative "
        "adversarial networks. MICCAI 2019, LNCS 11766:118-126. doi:10.1007/978-3-030-32248-9_14"
    ),
    "alphagan": (
        "Rosca M, Lakshminarayanan B, Warde-Farley D, Mohamed S (2017). Variational approaches for "
        "auto-encoding generative adversarial networks. arXiv:1706.04987. doi:10.48550/arXiv.1706.04987"
    ),
    "wgangp": (
        "Gulrajani I, Ahmed F, Arjovsky M, Dumoulin V, Courville A (2017). Improved training of Wasserstein "
        "GANs. Advances in Neural Information Processing Systems 30. doi:10.48550/arXiv.1704.00028"
    ),
    "spectral": (
        "Miyato T, Kataoka T, Koyama M, Yoshida Y (2018). Spectral normalization for generative adversarial "
        "networks. ICLR 2018. doi:10.48550/arXiv.1802.05957"
    ),
    "ema": (
        "Yazıcı Y, Foo CS, Winkler S, Yap KH, Piliouras G, Chandrasekhar V (2019). The unusual effectiveness "
        "of averaging in GAN training. ICLR 2019. doi:10.48550/arXiv.1806.04498"
    ),
    "gdl": (
        "Mathieu M, Couprie C, LeCun Y (2016). Deep multi-scale video prediction beyond mean square error. "
        "ICLR 2016. doi:10.48550/arXiv.1511.05440"
    ),
    "Adam": (
        "Kingma DP, Ba J (2015). Adam: a method for stochastic optimization. ICLR 2015. "
        "doi:10.48550/arXiv.1412.6980"
    ),
    "AdamW": (
        "Loshchilov I, Hutter F (2019). Decoupled weight decay regularization. ICLR 2019. "
        "doi:10.48550/arXiv.1711.05101"
    ),
    "torch": (
        "Paszke A, Gross S, Massa F, et al. (2019). PyTorch: an imperative style, high-performance deep "
        "learning library. Advances in Neural Information Processing Systems 32. "
        "doi:10.48550/arXiv.1912.01703"
    ),
    "bids": (
        "Gorgolewski KJ, Auer T, Calhoun VD, et al. (2016). The brain imaging data structure, a format for "
        "organizing and describing outputs of neuroimaging experiments. Scientific Data 3:160044. "
        "doi:10.1038/sdata.2016.44"
    ),
    "bootstrap": (
        "Efron B, Tibshirani RJ (1993). An introduction to the bootstrap. Chapman and Hall. "
        "doi:10.1007/978-1-4899-4541-9"
    ),
    "hesterberg": (
        "Hesterberg TC (2015). What teachers should know about the bootstrap: resampling in the "
        "undergraduate statistics curriculum. The American Statistician 69(4):371-386. "
        "doi:10.1080/00031305.2015.1089789"
    ),
    "monai": (
        "Cardoso MJ, Li W, Brown R, et al. (2022). MONAI: an open-source framework for deep learning in "
        "healthcare. doi:10.48550/arXiv.2211.02701"
    ),
    "unet": (
        "Kerfoot E, Clough J, Oksuz I, et al. (2019). Left-ventricle quantification using residual U-Net. "
        "Statistical Atlases and Computational Models of the Heart. doi:10.1007/978-3-030-12029-0_40"
    ),
    "nipype": (
        "Gorgolewski K, Burns CD, Madison C, et al. (2011). Nipype: a flexible, lightweight and extensible "
        "neuroimaging data processing framework in Python. Frontiers in Neuroinformatics 5:13. "
        "doi:10.3389/fninf.2011.00013"
    ),
    "nibabel": (
        "Brett M, Markiewicz CJ, Hanke M, et al. NiBabel: access a cacophony of neuro-imaging file formats. "
        "Zenodo. doi:10.5281/zenodo.591597"
    ),
    "templateflow": (
        "Ciric R, Thompson WH, Lorenz R, et al. (2022). TemplateFlow: FAIR-sharing of multi-scale, "
        "multi-species brain models. Nature Methods 19:1568-1571. doi:10.1038/s41592-022-01681-2"
    ),
    "ants": (
        "Tustison NJ, Cook PA, Holbrook AJ, et al. (2021). The ANTsX ecosystem for quantitative biological "
        "and medical imaging. Scientific Reports 11:9068. doi:10.1038/s41598-021-87564-6"
    ),
    "n4": (
        "Tustison NJ, Avants BB, Cook PA, et al. (2010). N4ITK: improved N3 bias correction. IEEE "
        "Transactions on Medical Imaging 29(6):1310-1320. doi:10.1109/TMI.2010.2046908"
    ),
    "syn": (
        "Avants BB, Epstein CL, Grossman M, Gee JC (2008). Symmetric diffeomorphic image registration with "
        "cross-correlation: evaluating automated labeling of elderly and neurodegenerative brain. Medical "
        "Image Analysis 12(1):26-41. doi:10.1016/j.media.2007.06.004"
    ),
    "spm": (
        "Ashburner J, Friston KJ (2005). Unified segmentation. NeuroImage 26(3):839-851. "
        "doi:10.1016/j.neuroimage.2005.02.018"
    ),
    "msssim": (
        "Wang Z, Simoncelli EP, Bovik AC (2003). Multiscale structural similarity for image quality "
        "assessment. 37th Asilomar Conference on Signals, Systems and Computers, 1398-1402. "
        "doi:10.1109/ACSSC.2003.1292216"
    ),
    "mmd": (
        "Gretton A, Borgwardt KM, Rasch MJ, Schölkopf B, Smola A (2012). A kernel two-sample test. Journal "
        "of Machine Learning Research 13:723-773."
    ),
    "precision": (
        "Kynkäänniemi T, Karras T, Laine S, Lehtinen J, Aila T (2019). Improved precision and recall metric "
        "for assessing generative models. Advances in Neural Information Processing Systems 32. "
        "doi:10.48550/arXiv.1904.06991"
    ),
    "density": (
        "Naeem MF, Oh SJ, Uh Y, Choi Y, Yoo J (2020). Reliable fidelity and diversity metrics for generative "
        "models. ICML 2020. doi:10.48550/arXiv.2002.09797"
    ),
    "frechet": (
        "Dowson DC, Landau BV (1982). The Fréchet distance between multivariate normal distributions. "
        "Journal of Multivariate Analysis 12(3):450-455. doi:10.1016/0047-259X(82)90077-X"
    ),
    "hedges": (
        "Hedges LV (1981). Distribution theory for Glass's estimator of effect size and related estimators. "
        "Journal of Educational Statistics 6(2):107-128. doi:10.3102/10769986006002107"
    ),
    "twonn": (
        "Facco E, d'Errico M, Rodriguez A, Laio A (2017). Estimating the intrinsic dimension of datasets by "
        "a minimal neighborhood information. Scientific Reports 7:12140. doi:10.1038/s41598-017-11873-y"
    ),
    "holm": (
        "Holm S (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of "
        "Statistics 6(2):65-70. doi:10.2307/4615733"
    ),
}
